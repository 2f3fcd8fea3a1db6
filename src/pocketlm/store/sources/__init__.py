"""Where bytes come from: Python packages, the Hugging Face hub, Ollama registries."""

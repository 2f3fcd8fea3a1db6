"""Model families: from a model file's metadata to a program for the native core.

    open_model(path) -> ModelSpec        config, program, tensors, tokenizer and template sources
    build_executor(spec, threads=...)    packs the weights and lowers the program

A family is data: one module under ``families`` with its names, its configuration and its program.
"""

from pocketlm.models.config import ModelConfig
from pocketlm.models.spec import ModelSpec, open_model

__all__ = ["ModelConfig", "ModelSpec", "open_model"]

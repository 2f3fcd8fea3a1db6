"""What a model needs and which one to take: advice from the facts of files and of this machine."""

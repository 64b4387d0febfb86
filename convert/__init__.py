"""The converter from Hugging Face checkpoints to MLX folders."""

"""Custom kernels, their references in plain MLX, and the choice between them."""

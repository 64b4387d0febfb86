"""Text of the Metal kernels; `orthrus_mlx.kernels` compiles it at run time."""

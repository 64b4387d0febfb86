"""Custom Metal kernels, their references in plain MLX, and the choice between them.

Three operations, each of which gives a row the same bits whatever rows travel with it:

- `block_linear`: x W^T for up to 32 rows (linear.py); `Plan.install` puts it into a model's layers.
- `block_attention`: a block's rows over the cache and over each other (attention.py); `Plan.attend`.
- `choose`, `accepted_path`: rule A and verification (verify.py).

`make_plan` decides per weight shape and device between them and stock MLX. They are executed in tests by an emulator
on Linux (docs/kernels.md); they have not run on Apple hardware yet. For the CPU there are products and attention
through NumPy (cpu_linear.py, cpu_attention.py), which `orthrus_mlx.cpu_pass` makes passes of.
"""

from .attention import attention_reference, block_attention, causal_mask, full_mask, tree_mask
from .linear import LinearWeight, block_linear, linear_reference
from .plan import AttentionShape, Plan, available, make_plan, model_weights, requested_mode
from .verify import accepted_path, accepted_path_reference, choose, choose_reference

__all__ = [
    "AttentionShape",
    "LinearWeight",
    "Plan",
    "accepted_path",
    "accepted_path_reference",
    "attention_reference",
    "available",
    "block_attention",
    "block_linear",
    "causal_mask",
    "choose",
    "choose_reference",
    "full_mask",
    "linear_reference",
    "make_plan",
    "model_weights",
    "requested_mode",
    "tree_mask",
]

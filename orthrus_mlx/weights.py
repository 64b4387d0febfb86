"""What a checkpoint's weights are called, how large they are, and how they may be quantised; needs no MLX."""

from __future__ import annotations

from .config import ModelArgs

AR = ""
DIFFUSION = "_diff"
"""A view is named by the suffix of its weights."""

QUANTIZATION_MODES = {
    "affine": ((32, 64, 128), (2, 3, 4, 5, 6, 8)),
    "mxfp4": ((32,), (4,)),
    "nvfp4": ((16,), (4,)),
    "mxfp8": ((32,), (8,)),
}
"""MLX's modes: the group sizes and the bits that each takes."""


def is_diffusion(name: str) -> bool:
    """Whether a tensor or a module of this name belongs to the diffusion view."""
    return f"{DIFFUSION}." in f"{name}."


def parameter_shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    """Name and shape of every unquantised tensor that `args` demands, in Hugging Face's names."""
    dim, D = args.hidden_size, args.head_dim
    q, kv = args.num_attention_heads * D, args.num_key_value_heads * D
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (args.vocab_size, dim)}
    for i in range(args.num_hidden_layers):
        layer = f"model.layers.{i}"
        for view in (AR, DIFFUSION) if args.has_diffusion_view else (AR,):
            attention = f"{layer}.self_attn"
            shapes[f"{attention}.q_proj{view}.weight"] = (q, dim)
            shapes[f"{attention}.k_proj{view}.weight"] = (kv, dim)
            shapes[f"{attention}.v_proj{view}.weight"] = (kv, dim)
            shapes[f"{attention}.o_proj{view}.weight"] = (dim, q)
            shapes[f"{attention}.q_norm{view}.weight"] = (D,)
            shapes[f"{attention}.k_norm{view}.weight"] = (D,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (args.intermediate_size, dim)
        shapes[f"{layer}.mlp.up_proj.weight"] = (args.intermediate_size, dim)
        shapes[f"{layer}.mlp.down_proj.weight"] = (dim, args.intermediate_size)
        shapes[f"{layer}.input_layernorm.weight"] = (dim,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (dim,)
    shapes["model.norm.weight"] = (dim,)
    if not args.tie_word_embeddings:
        shapes["lm_head.weight"] = (args.vocab_size, dim)
    return shapes

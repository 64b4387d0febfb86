"""The demo model decoding with every kernel, executed thread by thread in the emulator."""

from __future__ import annotations

import mlx.core as mx
import pytest

from orthrus_mlx import DecodeStats, demo_folder, exactness_of, mlx_generate
from orthrus_mlx.acceleration import install, pack
from orthrus_mlx.kernels import Plan, model_weights
from orthrus_mlx.kernels.plan import weight_class
from orthrus_mlx.loading import load_model, load_tokenizer, read_config
from orthrus_mlx.model import AR, DIFFUSION
from tests.emulator import emulated_metal
from tests.kernels_cases import ON_METAL

QUESTION = "Write as JSON with the keys name, age, city: Nina Weber is 41 years old and lives in Porto."


@pytest.mark.parametrize(
    ("family", "temperature"),
    [
        ("fma", 0.9),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("fma", 0.0), ("mma", 0.0), ("mma", 0.9)]),
    ],
)
def test_blocks_and_one_token_steps_emit_the_same_tokens_with_every_kernel(family: str, temperature: float):
    config = read_config(demo_folder())
    model, tokenizer = load_model(demo_folder(), config), load_tokenizer(demo_folder(), config)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    pack(model)
    classes = {weight_class(w) for w in model_weights(model, tied_head=True)}
    install(model, Plan(dict.fromkeys(classes, family), attention=family, choice=True))

    answers, stats = {}, {}
    with emulated_metal() as emulation:
        for mode in ("ar", "diffusion"):
            stats[mode] = DecodeStats()
            # No stop token: sampled answers may be short, and 32 tokens are the promise.
            answers[mode] = list(
                mlx_generate(model, prompt, None, 36, temperature, mode=mode, seed=11, stats=stats[mode])
            )
        names = {launch.name for launch in emulation.launches}
        exactness = exactness_of(model)

    assert len(answers["ar"]) == 36
    assert answers["diffusion"] == answers["ar"]
    assert exactness.kind == "row-exact", exactness.evidence
    assert 0 < stats["diffusion"].accepted < stats["diffusion"].drafted
    if ON_METAL:
        return  # which kernels ran, only the emulator tells
    for kernel in (f"linear_{family}_dense", "attention_", "attention_merge", "choose_pieces", "choose_merge"):
        assert any(kernel in name for name in names), (kernel, names)


def test_packed_projections_give_the_same_bits():
    config = read_config(demo_folder())
    plain, packed = load_model(demo_folder(), config), load_model(demo_folder(), config)
    pack(packed)
    assert "qkv_proj_diff" in packed.layers[0].self_attn
    assert "q_proj" not in packed.layers[0].self_attn
    tokens = mx.arange(10)[None]
    for view in (AR, DIFFUSION):
        assert mx.array_equal(plain(tokens, view=view), packed(tokens, view=view))

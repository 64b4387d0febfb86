"""A budget ends a thought where it says, in every mode, and never anywhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from serving_server import TOOL_TEMPLATE, running

from orthrus_mlx.loading import load_tokenizer
from orthrus_mlx.serving.engine import Engine
from orthrus_mlx.serving.service import Service
from orthrus_mlx.serving.thinking import ThinkingBudget

pytest_plugins = ["serving_fixtures"]

START, END, SIZE = 3, 4, 40
TOKENS = st.lists(st.sampled_from([START, END, 7, 8]), max_size=12)


def bits(row: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))


@given(said=TOKENS, drafts=TOKENS, budget=st.integers(0, 5), inside=st.booleans())
def test_the_masks_of_a_block_are_those_of_one_token_after_the_other(said, drafts, budget, inside):
    budgeted, alone = (ThinkingBudget(START, END, budget, SIZE, inside=inside) for _ in range(2))
    for token in said:
        if token in bits(alone.allowed(())[1][0]):
            budgeted.advance([token])
            alone.advance([token])
    n, masks = budgeted.allowed(drafts)
    assert masks.shape == (n + 1, 2)
    for row in range(n + 1):
        assert np.array_equal(masks[row], alone.allowed(())[1][0])
        if row < len(drafts):
            assert (drafts[row] in bits(masks[row])) == (row < n)
        if row < n:
            alone.advance([drafts[row]])


@given(tokens=TOKENS, budget=st.integers(0, 5))
def test_no_more_tokens_are_thought_than_the_budget_has_and_the_rest_is_free(tokens, budget):
    constraint, inside, used = ThinkingBudget(START, END, budget, SIZE, inside=True), True, 0
    for token in tokens:
        allowed = bits(constraint.allowed(())[1][0])
        assert list(allowed) == [END] if inside and used == budget else len(allowed) == 64
        token = token if token in allowed else END
        constraint.advance([token])
        used += inside and token not in (START, END)
        inside = token == START or (inside and token != END)
    assert used <= budget


def test_a_request_thinks_no_longer_than_it_may(thinking_model, thinking_folder):
    """The template opens the thought, and a random model hardly ever ends one by itself."""
    template = TOOL_TEMPLATE + "{{- '<think>' }}"
    tokenizer = load_tokenizer(thinking_folder, {"eos_token_id": [2]}, {"chat_template": template})
    request = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 40,
        "temperature": 1.0,
        "seed": 2,
        "block_size": 8,
    }
    with running(Service(Engine(thinking_model[0]), tokenizer, ["tiny"])) as server:

        def blocks(**settings) -> dict[str, str]:
            reply = server.client.post("/v1/messages", json={**request, **settings}).json()
            return {block["type"]: block.get("thinking") or block.get("text") for block in reply["content"]}

        assert blocks().keys() == {"thinking"}
        limited = [blocks(thinking={"type": "enabled", "budget_tokens": 6}, mode=mode) for mode in ("ar", "diffusion")]
        assert limited[0] == limited[1] and limited[0].keys() == {"thinking", "text"}
        assert blocks()["thinking"].startswith(limited[0]["thinking"].rstrip("\ufffd"))
        assert blocks(thinking={"type": "enabled", "budget_tokens": 0}).keys() == {"text"}

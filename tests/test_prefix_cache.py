"""Prefixes kept in memory and on disk: reuse never changes a token, and nothing that is not ours is believed."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
import tiny
from engine_cases import STEP, alone, engine_of, model_on_numpy, random_requests, request, text, together
from hypothesis import given, settings
from hypothesis import strategies as st

from orthrus_mlx.cache import KVCache
from orthrus_mlx.decoding.prefill import read_chunk
from orthrus_mlx.exactness import exactness_of
from orthrus_mlx.passes import Block, run_pass
from orthrus_mlx.serving import engine as engine_module
from orthrus_mlx.serving import spill as spill_module
from orthrus_mlx.serving.prefix_cache import PrefixCache
from orthrus_mlx.serving.spill import Spill, free_position, identity_of

LAYERS = 2
TOKEN_BYTES = 2 * LAYERS * 2 * 4 * 4
"""Keys and values of one token below: two layers, two heads of four float32."""


def cache_of(tokens) -> KVCache:
    """A cache whose rows tell which tokens stand before them."""
    cache = KVCache(LAYERS)
    seen, rows = 0, []
    for token in tokens:
        seen = (seen * 31 + token + 1) % 10007
        rows.append(seen)
    for i, layer in enumerate(cache):
        block = mx.array(rows, dtype=mx.float32)[None, None, :, None] + mx.zeros((1, 2, 1, 4)) + i / 4
        layer.update_and_fetch(block, -block)
    cache.commit(len(rows))
    mx.eval(cache.arrays)
    return cache


def check(found: KVCache, tokens) -> int:
    """That the cache holds the rows of its first tokens; returns how many."""
    for ours, right in zip(found.arrays, cache_of(tokens).arrays, strict=False):
        assert mx.array_equal(ours[..., : found.offset, :], right[..., : found.offset, :])
    return found.offset


def tree(limit: int = 10**6, step: int = 1, spill: Spill | None = None) -> PrefixCache:
    return PrefixCache(LAYERS, limit * TOKEN_BYTES, step_size=step, any_position=step == 1, spill=spill)


TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14).map(tuple), min_size=1, max_size=14)


def longest_common(texts, tokens) -> int:
    return max(
        (next((i for i, (a, b) in enumerate(zip(t, tokens, strict=False)) if a != b), min(len(t), len(tokens))))
        for t in texts
    )


@settings(max_examples=150)
@given(texts=TEXTS, asked=st.lists(st.integers(0, 2), min_size=1, max_size=16).map(tuple))
def test_the_longest_known_prefix_is_found_and_its_rows_are_right(texts, asked):
    prefixes = tree()
    for known in texts:
        prefixes.insert(known, cache_of(known))
    assert check(prefixes.open(asked, len(asked)), asked) == longest_common(texts, asked)
    distinct = {known[: i + 1] for known in texts for i in range(len(known))}
    assert prefixes.nbytes == len(distinct) * TOKEN_BYTES, "what texts share is there once"


@settings(max_examples=60)
@given(texts=TEXTS, limit=st.integers(0, 12), use=st.lists(st.integers(0, 13), max_size=8))
def test_memory_stays_within_its_limit_and_what_is_found_is_right(texts, limit, use):
    prefixes = tree(limit)
    for known in texts:
        prefixes.insert(known, cache_of(known))
        assert prefixes.nbytes <= limit * TOKEN_BYTES
        for i in use:
            asked = texts[i % len(texts)]
            check(prefixes.open(asked, len(asked)), asked)
            assert prefixes.nbytes <= limit * TOKEN_BYTES


def test_the_least_recently_used_goes_first_and_a_beginning_outlives_its_ends():
    prefixes = tree(limit=12)
    stem = (7, 7, 7, 7)
    for end in ((1, 1, 1), (2, 2, 2), (3, 3, 3)):
        prefixes.insert(stem + end, cache_of(stem + end))
        prefixes.open((*stem, 1, 1, 1), 7)
    assert [prefixes.open((*stem, n, n, n), 7).offset for n in (1, 2, 3)] == [7, 4, 7]
    prefixes.shrink(4 * TOKEN_BYTES)
    assert [prefixes.open((*stem, n, n, n), 7).offset for n in (1, 2, 3)] == [4, 4, 4]


def test_elsewhere_than_on_a_row_exact_cpu_only_whole_chunks_are_kept_and_given():
    prefixes = tree(step=4)
    known = tuple(range(11))
    prefixes.insert(known, cache_of(known))
    assert prefixes.nbytes == 8 * TOKEN_BYTES
    assert [prefixes.open(known, most).offset for most in (3, 4, 7, 8, 10, 11)] == [0, 4, 4, 8, 8, 8]
    other = (*known[:6], 99, 99, 99, 99)
    assert check(prefixes.open(other, 10), other) == 4
    prefixes.insert(other, cache_of(other))
    assert check(prefixes.open(other, 10), other) == 8


def test_a_request_that_writes_on_changes_neither_the_tree_nor_another_request():
    prefixes = tree()
    known = (1, 2, 3, 4)
    prefixes.insert(known, cache_of(known))
    caches = [prefixes.open(known, 4) for _ in range(2)]
    for n, cache in enumerate(caches):
        for layer in cache:
            block = mx.full((1, 2, 300, 4), n + 100.0)
            layer.update_and_fetch(block, block)
        cache.commit(300)
        mx.eval(cache.arrays)
    prefixes.shrink(0)
    for n, cache in enumerate(caches):
        check_rows = cache.layers[0].keys[0, 0, :304, 0]
        assert check_rows[4:].tolist() == [n + 100.0] * 300
        assert mx.array_equal(check_rows[:4], cache_of(known).layers[0].keys[0, 0, :4, 0])


def test_what_is_kept_holds_no_more_memory_than_it_counts():
    prefixes = tree()
    long = tuple(range(200)) * 40
    cache = cache_of(long)
    prefixes.insert(long[:8], cache)
    del cache
    before = mx.get_active_memory()
    prefixes.shrink(0)
    assert before - mx.get_active_memory() <= 16 * 8 * TOKEN_BYTES, "a small node kept a large buffer alive"


# With a model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny.text_model, model_on_numpy])
@pytest.mark.parametrize("seed", [0, 1])
def test_conversations_have_the_same_tokens_with_and_without_a_cache(make, seed):
    model = make(seed)
    rng = random.Random(seed)
    asked = []
    for _ in range(6):
        talk = text(rng, rng.choice((10, 40)))
        for _ in range(3):
            one = request(talk, rng.randint(3, 12), mode=rng.choice(("ar", "diffusion")))
            asked.append(one)
            tokens, _ = alone(model, one)
            thought = rng.randrange(len(tokens) + 1)  # a template that strips the beginning of the answer
            talk = (*talk, *tokens[thought:], *text(rng, 5))
    found = {}
    for prefixes in (0, 40 * 2**10, None):
        with engine_of(model, prefixes=prefixes) as engine:
            found[prefixes] = together(engine, asked, clients=1)
            cached = engine.metrics()["cached_tokens"]
            assert (cached > 0) == (prefixes != 0)
    assert found[0] == found[None] == found[40 * 2**10] == [alone(model, one) for one in asked]


@pytest.mark.parametrize("make", [tiny.text_model, model_on_numpy])
def test_rows_that_were_decoded_are_the_rows_that_are_read(make):
    model = make(0)
    assert free_position(model, exactness_of(model))
    text = mx.array(tiny.prompt(5, 150, tiny.BYTES), dtype=mx.int32)
    decoded = KVCache(len(model.layers))
    read_chunk(model, text[:40], decoded)
    for start in range(40, 150, 5):
        run_pass(model, [Block(decoded, text[start : start + 5])])
        decoded.commit(5)
    for step in (150, 64, 7):
        read = KVCache(len(model.layers))
        for start in range(0, 150, step):
            read_chunk(model, text[start : start + step], read)
        for ours, theirs in zip(read.arrays, decoded.arrays, strict=True):
            assert mx.array_equal(ours[..., :150, :], theirs[..., :150, :]), f"chunks of {step}"


def test_a_second_turn_reads_only_what_is_new():
    model = tiny.text_model()
    first = request(range(60, 110), 20, stop_tokens=frozenset())
    with engine_of(model) as engine:
        ((tokens, _),) = together(engine, [first], clients=1)
        second = request((*first.prompt, *tokens, 70, 71), 5)
        together(engine, [second], clients=1)
        # All of the first turn but its last token, which was never read.
        assert engine.metrics()["cached_tokens"] >= len(first.prompt) + len(tokens) - 1


def test_in_chunks_a_prompt_is_read_in_the_same_pieces_whatever_is_cached(monkeypatch):
    model = tiny.text_model()
    monkeypatch.setattr(engine_module, "free_position", lambda model, exactness: False)
    pieces = []
    read_chunk = engine_module.Scheduler._read_some.__globals__["read_chunk"]

    def recorded(model, chunk, cache):
        pieces.append((cache.offset, chunk.size))
        read_chunk(model, chunk, cache)

    monkeypatch.setitem(engine_module.Scheduler._read_some.__globals__, "read_chunk", recorded)
    asked = random_requests(30, seed=6)
    with engine_of(model) as engine:
        answers = together(engine, asked, clients=8)
        assert engine.metrics()["cached_tokens"] > 0
    assert all(start % STEP == 0 for start, _ in pieces), "a chunk begins where it would begin alone"
    ends = {len(one.prompt) - 1 for one in asked}
    assert all(size == STEP or start + size in ends for start, size in pieces)
    assert answers == [alone(model, one) for one in asked]


# On disk ------------------------------------------------------------------------------------------------


def spill_of(folder: Path, identity: str = "us", tokens: int = 1000) -> Spill:
    return Spill(folder, tokens * TOKEN_BYTES, identity)


def filled(folder: Path, known=(1, 2, 3, 4, 5, 6)) -> list[Path]:
    prefixes = tree(spill=spill_of(folder))
    prefixes.insert(known, cache_of(known))
    prefixes.close()
    return sorted(folder.iterdir())


def test_evicted_prefixes_come_back_from_disk_with_the_same_bits(tmp_path):
    prefixes = tree(limit=6, spill=spill_of(tmp_path))
    texts = [(n, 5, 6, n, 8, 9) for n in range(6)]
    for known in texts:
        prefixes.insert(known, cache_of(known))
    assert prefixes.nbytes <= 6 * TOKEN_BYTES < prefixes.disk_bytes
    for known in texts:
        assert check(prefixes.open(known, 6), known) == 6
        assert prefixes.nbytes <= 6 * TOKEN_BYTES


@settings(max_examples=60)
@given(texts=TEXTS, memory=st.integers(0, 8), disk=st.integers(0, 60))
def test_a_restart_finds_what_is_on_disk_and_nothing_wrong(texts, memory, disk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spill")
    for _ in range(2):
        spill = Spill(folder, disk * 40 * TOKEN_BYTES, "us")
        prefixes = tree(memory, spill=spill)
        for known in texts:
            check(prefixes.open(known, len(known)), known)
            prefixes.insert(known, cache_of(known))
            assert spill.nbytes <= spill.limit
        prefixes.close()
        assert sum(file.stat().st_size for file in folder.iterdir()) == spill.nbytes <= spill.limit


def test_a_restart_goes_on_with_the_prefixes_of_the_last_run(tmp_path):
    texts = [(1, 2, 3, 4, 5), (1, 2, 3, 9, 9, 9), (4, 4)]
    prefixes = tree(spill=spill_of(tmp_path))
    for known in texts:
        prefixes.insert(known, cache_of(known))
    prefixes.close()
    again = tree(spill=spill_of(tmp_path))
    assert again.nbytes == 0
    assert [check(again.open(known, len(known)), known) for known in texts] == [5, 6, 2]


@pytest.mark.parametrize("place", [0, 5, 25, 60, 61, 120, 400, -1])
def test_a_file_with_one_changed_byte_is_removed_and_costs_a_miss(tmp_path, place):
    (file,) = filled(tmp_path)
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 0x41
    file.write_bytes(damaged)
    prefixes = tree(spill=spill_of(tmp_path))
    assert prefixes.open((1, 2, 3, 4, 5, 6), 6).offset == 0
    assert len(prefixes) == 0 or prefixes.open((1, 2, 3, 4, 5, 6), 6).offset == 0
    # Tokens of a damaged header lead nowhere; asked for, they are found out too.
    for node in list(prefixes._below(prefixes._root)):
        assert prefixes.open(node.path(), 6).offset == 0
    assert not file.exists() and prefixes.disk_bytes == 0


@pytest.mark.parametrize("size", [0, 10, 60, 200, -1])
def test_a_truncated_file_is_removed_and_costs_a_miss(tmp_path, size):
    (file,) = filled(tmp_path)
    file.write_bytes(file.read_bytes()[:size])
    prefixes = tree(spill=spill_of(tmp_path))
    assert prefixes.open((1, 2, 3, 4, 5, 6), 6).offset == 0
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_model_and_leftovers_of_a_killed_run_are_removed(tmp_path):
    filled(tmp_path)
    (tmp_path / ".abc.partial-12345678.prefix").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    assert tree(spill=spill_of(tmp_path, "others")).open((1, 2, 3), 3).offset == 0
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_whose_beginning_is_gone_is_removed_at_the_next_start(tmp_path):
    prefixes = tree(spill=spill_of(tmp_path))
    for known in ((1, 2, 3, 4), (1, 2, 9, 9)):
        prefixes.insert(known, cache_of(known))
    prefixes.close()
    stem = min(tmp_path.iterdir(), key=lambda file: len(spill_of(tmp_path)._header(file)["tokens"]))
    stem.unlink()
    assert len(tree(spill=spill_of(tmp_path))) == 0
    assert list(tmp_path.iterdir()) == []


KILLED = """
import itertools, sys
from pathlib import Path
from test_prefix_cache import cache_of, spill_of, tree

prefixes = tree(limit=8, spill=spill_of(Path(sys.argv[1]), tokens=10**5))
for n in itertools.count():
    known = (n % 7, n % 5, n % 3, n, n + 1, n + 2)
    prefixes.insert(known, cache_of(known))
    if n == 40:
        print("writing", flush=True)
"""


def test_after_kill_9_in_the_middle_of_writing_what_is_found_is_right(tmp_path):
    folder = tmp_path / "spill"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", KILLED, str(folder)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    prefixes = tree(spill=spill_of(folder, tokens=10**5))
    found = [
        check(prefixes.open(known, 6), known) for n in range(41) for known in [(n % 7, n % 5, n % 3, n, n + 1, n + 2)]
    ]
    assert max(found) == 6
    assert not list(folder.glob("*.partial-*"))
    assert sum(file.stat().st_size for file in folder.iterdir()) == prefixes.disk_bytes


def test_a_full_disk_costs_the_spill_and_nothing_else(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spill_module, "replacing", full)
    prefixes = tree(limit=6, spill=spill_of(tmp_path))
    for n in range(4):
        prefixes.insert((n, 1, 2, 3), cache_of((n, 1, 2, 3)))
    assert prefixes.nbytes <= 6 * TOKEN_BYTES and prefixes.disk_bytes == 0
    assert check(prefixes.open((3, 1, 2, 3), 4), (3, 1, 2, 3)) == 4
    assert list(tmp_path.iterdir()) == []


def test_the_folder_and_its_files_are_their_owners_alone(tmp_path):
    (file,) = filled(tmp_path / "new")
    assert file.stat().st_mode & 0o077 == 0 and file.parent.stat().st_mode & 0o077 == 0


def test_another_model_another_chunk_length_and_other_bits_have_another_identity():
    model, exactness = tiny.text_model(), exactness_of(tiny.text_model())
    names = {identity_of(model, exactness, 512), identity_of(tiny.text_model(1), exactness, 512)}
    settings, drawn = tiny.text_config(), tiny.weights(tiny.text_config())
    assert identity_of(tiny.build(settings, drawn), exactness, 512) in names, "the same weights"
    drawn["model.layers.1.mlp.down_proj.weight"][3, 4] += 2**-10
    names.add(identity_of(tiny.build(settings, drawn), exactness, 512))
    names.add(identity_of(tiny.build(settings, drawn, "bfloat16"), exactness, 512))
    assert len(names) == 4


def test_an_engine_goes_on_with_the_prefixes_of_the_last_one(tmp_path):
    model = tiny.text_model()
    asked = [one for one in random_requests(10, seed=8) if len(one.prompt) > 8]
    found = []
    for _ in range(2):
        with engine_of(model, spill=tmp_path) as engine:
            found.append(together(engine, asked, clients=4))
            cached = engine.metrics()["cached_tokens"]
    assert found[0] == found[1] == [alone(model, one) for one in asked]
    assert cached >= sum(len(one.prompt) - 1 for one in asked)

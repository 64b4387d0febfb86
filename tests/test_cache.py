"""The shared KV cache: verified rows never change, scratch costs nothing, and mlx-lm reads and writes its files."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import cache as mlx_lm_cache

from orthrus_mlx import cache as cache_module
from orthrus_mlx.cache import CHUNK, KVCache
from orthrus_mlx.errors import CheckpointError, OrthrusError, RequestError
from orthrus_mlx.generation import mlx_generate, stream_generate

LAYERS = 2


def verified(cache: KVCache) -> list[np.ndarray]:
    return [np.array(a.astype(mx.float32))[..., : cache.offset, :] for a in cache.arrays]


def rows_of(value: int, count: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    """Keys [1, 1, count, 2] that tell every row apart."""
    first = mx.arange(value, value + count)
    return mx.stack([first, -first], axis=-1)[None, None].astype(dtype)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("stage"), st.integers(1, 9), st.integers(0, 9)),
        st.tuples(st.just("draft"), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("trim"), st.integers(0, 12), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(steps=STEPS, chunk=st.sampled_from([1, 4, 7]))
def test_rows_below_the_offset_never_change_whatever_is_staged_behind_them(steps, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "CHUNK", chunk)
        shared = KVCache(LAYERS)
        kept: list[int] = []
        fresh = itertools.count(1, 10)
        for step, count, accepted in steps:
            if step == "trim":
                shared.trim(count)
                del kept[max(len(kept) - count, 0) :]
            else:
                value = next(fresh)
                block = rows_of(value, count)
                for layer in shared:
                    keys, values = layer.update_and_fetch(block, block + 0.5)
                    expected = [*kept, *range(value, value + count)]
                    assert keys[0, 0, :, 0].tolist() == expected
                    assert values[0, 0, :, 1].tolist() == [0.5 - v for v in expected]
                if step == "stage":
                    accepted = min(accepted, count)
                    shared.commit(accepted)
                    kept += range(value, value + accepted)
            assert shared.offset == len(kept)
            for array, shift in zip(verified(shared), itertools.cycle((0, 0.5))):
                assert (array[0, 0, :, 0] - shift).tolist() == kept
            for buffer in shared.arrays:
                assert buffer.shape[2] % chunk == 0


def test_growth_over_many_chunks_keeps_every_row():
    shared, length = KVCache(1), 5 * CHUNK + 3
    sizes = itertools.cycle([1, 31, 256, 255, 2, 100])
    while shared.offset < length:
        count = min(next(sizes), length - shared.offset)
        block = rows_of(shared.offset, count)
        shared[0].update_and_fetch(block, block)
        shared.commit(count)
    assert verified(shared)[0][0, 0, :, 0].tolist() == list(range(length))
    assert shared.arrays[0].shape[2] == 6 * CHUNK


def test_verified_rows_keep_their_dtype_and_a_draft_does_not_choose_it():
    shared = KVCache(1)
    layer = shared[0]
    layer.update_and_fetch(rows_of(1, 4, mx.float32), rows_of(1, 4, mx.float32))
    keys, _ = layer.update_and_fetch(rows_of(1, 4, mx.bfloat16), rows_of(1, 4, mx.bfloat16))
    assert keys.dtype == mx.bfloat16
    shared.commit(4)
    for rows in (4, 2 * CHUNK):
        keys, _ = layer.update_and_fetch(rows_of(9, rows, mx.float32), rows_of(9, rows, mx.float32))
        assert keys.dtype == mx.bfloat16


def test_trim_stops_at_nothing():
    shared = KVCache(1)
    shared.commit(3)
    shared.trim(-1)
    assert shared.offset == 3
    shared.trim(5)
    assert shared.offset == 0


def test_block_decoding_costs_no_memory_beyond_the_tokens_and_one_block():
    model = tiny.tiny_model(0, 8.0)
    args = model.args
    row = 2 * args.num_key_value_heads * args.head_dim * 4
    for mode in ("ar", "diffusion"):
        shared = KVCache(LAYERS)
        for _ in mlx_generate(model, tiny.prompt(0, 40), None, 260, 1.0, seed=1, mode=mode, prompt_cache=shared):
            most = -(-(shared.offset + args.block_size) // CHUNK) * CHUNK
            assert shared.nbytes <= LAYERS * row * most
        assert shared.offset == 300
        assert shared.nbytes == LAYERS * row * 2 * CHUNK


# Whatever ends a generation, the cache is valid -----------------------------------------------------

MODES = ({"mode": "ar"}, {"mode": "diffusion", "block_size": 6}, {"mode": "auto"})


class Interruption(BaseException):
    """Like KeyboardInterrupt, not an Exception."""


def assert_goes_on(model, shared: KVCache, emitted: list[int], whole: list[int], **options) -> None:
    """After `emitted` tokens the cache holds them, and a second call gives the rest of `whole`."""
    assert emitted == whole[: len(emitted)]
    if emitted:
        shared.trim(1)
        rest = list(mlx_generate(model, emitted[-1:], None, len(whole) - len(emitted), prompt_cache=shared, **options))
        assert rest == whole[len(emitted) :]


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m["mode"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Interruption])
@pytest.mark.parametrize("call", [1, 2, 5, 11])
def test_an_error_in_a_processor_or_sampler_leaves_prompt_and_emitted_tokens(mode, error, call):
    model, prompt = tiny.tiny_model(0, 8.0), tiny.prompt(4, 8)
    for kind in ("processor", "sampler"):
        calls = itertools.count(1)

        def user_code(*arguments, calls=calls, kind=kind):
            if next(calls) == call:
                raise error("from user code")
            return arguments[-1] if kind == "processor" else mx.argmax(arguments[-1], axis=-1)

        options = {"logits_processors": [user_code]} if kind == "processor" else {"sampler": user_code}
        whole = list(mlx_generate(model, prompt, None, 16, mode="ar"))
        shared, emitted = KVCache(LAYERS), []
        with pytest.raises(error, match="from user code"):
            for token in mlx_generate(model, prompt, None, 16, prompt_cache=shared, **mode, **options):
                emitted.append(token)
        assert shared.offset == len(prompt) + len(emitted)
        # A draft verified in the call that failed may not have been emitted: those before it all were.
        assert len(emitted) <= call - 1
        assert_goes_on(model, shared, emitted, whole, **mode)


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m["mode"])
def test_ctrl_c_in_the_consumer_or_thrown_into_the_stream_leaves_a_valid_cache(mode):
    model, prompt = tiny.text_model(0), tiny.prompt(4, 8)
    options = {"temperature": 0.9, "seed": 3, **mode}
    whole = list(mlx_generate(model, prompt, None, 20, **options))
    for taken in (1, 2, 7, 13):
        shared, emitted = KVCache(LAYERS), []
        with pytest.raises(KeyboardInterrupt):
            for response in stream_generate(model, tiny.text_tokenizer(), prompt, 20, prompt_cache=shared, **options):
                emitted.append(response.token)
                if len(emitted) == taken:
                    raise KeyboardInterrupt
        assert shared.offset == len(prompt) + taken
        assert_goes_on(model, shared, emitted, whole, **options)

        shared = KVCache(LAYERS)
        stream = stream_generate(model, tiny.text_tokenizer(), prompt, 20, prompt_cache=shared, **options)
        emitted = [r.token for r in itertools.islice(stream, taken)]
        with pytest.raises(Interruption):
            stream.throw(Interruption())
        assert shared.offset == len(prompt) + taken
        assert_goes_on(model, shared, emitted, whole, **options)


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_an_interrupted_prompt_leaves_the_part_that_was_read(chunks):
    model, prompt = tiny.tiny_model(0), tiny.prompt(5, 20)

    def progress(read: int, total: int) -> None:
        if read == 8 * chunks:
            raise KeyboardInterrupt

    shared = KVCache(LAYERS)
    with pytest.raises(KeyboardInterrupt):
        list(
            mlx_generate(
                model, prompt, None, 9, prompt_cache=shared, prefill_step_size=8, prompt_progress_callback=progress
            )
        )
    assert shared.offset == 8 * chunks
    rest = list(mlx_generate(model, prompt[8 * chunks :], None, 9, prompt_cache=shared))
    assert rest == list(mlx_generate(model, prompt, None, 9))


def test_an_iterator_that_was_never_started_leaves_the_cache_alone():
    model, shared = tiny.tiny_model(0), KVCache(LAYERS)
    mlx_generate(model, [1, 2, 3], None, prompt_cache=shared).close()
    stream_generate(model, tiny.text_tokenizer(), [1, 2, 3], prompt_cache=shared).close()
    assert shared.offset == 0


def test_a_copied_cache_forks_the_text():
    model, shared = tiny.tiny_model(0), KVCache(LAYERS)
    list(mlx_generate(model, tiny.prompt(0, 9), None, 5, prompt_cache=shared))
    fork = copy.deepcopy(shared)
    before = verified(shared)
    one = list(mlx_generate(model, [5], None, 9, 1.0, seed=1, prompt_cache=fork))
    assert all(np.array_equal(a, b) for a, b in zip(before, verified(shared), strict=True))
    assert one == list(mlx_generate(model, [5], None, 9, 1.0, seed=1, prompt_cache=shared))


# mlx-lm's prompt caches -----------------------------------------------------------------------------


def theirs(model, prompt, length: int, prompt_cache=None) -> list[int]:
    responses = mlx_lm.stream_generate(
        model, tiny.text_tokenizer(), mx.array(prompt), length, prompt_cache=prompt_cache
    )
    return [r.token for r in responses]


def without_eos(model, length: int) -> list[int]:
    """A prompt after which greedy decoding does not end within `length` tokens."""
    for seed in itertools.count():
        prompt = tiny.prompt(seed, 9, 250)
        if tiny.IM_END not in mlx_generate(model, prompt, None, length):
            return prompt
    raise AssertionError


@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_mlx_lm_goes_on_from_our_file_and_we_from_theirs(tmp_path, mode):
    model = tiny.text_model(0)
    prompt, file = without_eos(model, 25), tmp_path / "text.safetensors"
    whole = theirs(model, prompt, 25)

    shared = KVCache(LAYERS)
    first = list(mlx_generate(model, prompt, None, 12, mode=mode, prompt_cache=shared))
    shared.save(file, {"title": "a chat"})
    caches, metadata = mlx_lm.models.cache.load_prompt_cache(str(file), return_metadata=True)
    assert metadata == {"title": "a chat"}
    assert caches[0].offset == len(prompt) + 12
    mlx_lm_cache.trim_prompt_cache(caches, 1)
    assert first + theirs(model, first[-1:], 13, caches) == whole

    caches = mlx_lm_cache.make_prompt_cache(model)
    first = theirs(model, prompt, 12, caches)
    mlx_lm_cache.save_prompt_cache(str(file), caches, {"title": "theirs"})
    shared, metadata = KVCache.load(file)
    assert (shared.offset, metadata) == (len(prompt) + 12, {"title": "theirs"})
    shared.trim(1)
    assert first + list(mlx_generate(model, first[-1:], None, 13, mode=mode, prompt_cache=shared)) == whole


@pytest.mark.parametrize("container", [list, tuple])
@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_an_mlx_lm_prompt_cache_in_memory_is_gone_on_from_and_written_back(container, mode):
    model = tiny.text_model(0)
    prompt = without_eos(model, 25)
    whole = theirs(model, prompt, 25)
    caches = container(mlx_lm_cache.make_prompt_cache(model))
    first = list(mlx_generate(model, prompt, None, 10, mode=mode, prompt_cache=caches))
    assert {c.offset for c in caches} == {len(prompt) + 10}
    mlx_lm_cache.trim_prompt_cache(list(caches), 1)
    second = list(mlx_generate(model, first[-1:], None, 8, mode=mode, prompt_cache=caches))
    mlx_lm_cache.trim_prompt_cache(list(caches), 1)
    assert first + second + theirs(model, second[-1:], 7, list(caches)) == whole


def test_a_saved_cache_comes_back_bit_for_bit(tmp_path):
    for dtype in tiny.DTYPES:
        shared, file = KVCache(LAYERS), tmp_path / f"{dtype}.safetensors"
        list(mlx_generate(tiny.tiny_model(0, dtype=dtype), tiny.prompt(0, 9), None, 9, prompt_cache=shared))
        shared.save(file)
        again, metadata = KVCache.load(str(file))
        assert (again.offset, metadata) == (18, {})
        for a, b in zip(shared.arrays, again.arrays, strict=True):
            assert a.dtype == b.dtype
            assert mx.array_equal(a[..., :18, :], b[..., :18, :])


def saved(folder: Path) -> Path:
    shared, file = KVCache(LAYERS), folder / "cache.safetensors"
    list(mlx_generate(tiny.tiny_model(0), tiny.prompt(0, 9), None, 9, prompt_cache=shared))
    shared.save(file)
    return file


def test_saving_is_atomic_and_leaves_no_partial_file(tmp_path, monkeypatch):
    file = saved(tmp_path)
    before = file.read_bytes()
    shared, _ = KVCache.load(file)
    list(mlx_generate(tiny.tiny_model(0), [1], None, 3, prompt_cache=shared))

    def fails(*arguments):
        Path(arguments[0]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mlx_lm_cache, "save_prompt_cache", fails)
    with pytest.raises(OSError, match="No space left"):
        shared.save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(RequestError, match="the cache is empty"):
        KVCache(LAYERS).save(tmp_path / "cache.safetensors")
    shared, _ = KVCache.load(saved(tmp_path))
    with pytest.raises(RequestError, match=r"chat\.cache: the name of a cache file must end in \.safetensors"):
        shared.save(tmp_path / "chat.cache")
    with pytest.raises(RequestError, match="there is no folder"):
        shared.save(tmp_path / "absent" / "cache.safetensors")


def with_arrays(file: Path, change) -> None:
    """Rewrite a prompt-cache file with changed contents, correct in every other respect."""
    arrays, metadata = mx.load(str(file), return_metadata=True)
    mx.eval(arrays)
    change(arrays, metadata)
    mx.save_safetensors(str(file), arrays, metadata)


DAMAGE = {
    "missing": (lambda f: f.unlink(), "no such file"),
    "empty": (lambda f: f.write_bytes(b""), "corrupt or truncated header"),
    "text": (lambda f: f.write_text("not a cache, but long enough to have a header length"), "header"),
    "truncated": (lambda f: f.write_bytes(f.read_bytes()[:-100]), "truncated"),
    "longer": (lambda f: f.write_bytes(f.read_bytes() + b"\0"), "too long"),
    "other tensors": (lambda f: mx.save_safetensors(str(f), {"a": mx.zeros(3)}), "not a readable mlx-lm prompt cache"),
    "offset beyond the rows": (
        lambda f: with_arrays(f, lambda a, m: a.update({"0.2": mx.array(1000), "1.2": mx.array(1000)})),
        "layer 0 does not hold",
    ),
    "negative offset": (lambda f: with_arrays(f, lambda a, m: a.update({"0.2": mx.array(-1)})), "layer 0 does not"),
    "offset not whole": (lambda f: with_arrays(f, lambda a, m: a.update({"0.2": mx.array(2.5)})), "layer 0 does not"),
    "offsets differ": (lambda f: with_arrays(f, lambda a, m: a.update({"0.2": mx.array(3)})), "disagree on the offset"),
    "a batch": (
        lambda f: with_arrays(f, lambda a, m: a.update({k: mx.zeros((2, 2, 256, 16)) for k in ("0.0", "0.1")})),
        "layer 0 does not hold",
    ),
    "values too short": (
        lambda f: with_arrays(f, lambda a, m: a.update({"1.1": a["1.1"][..., :5, :]})),
        "layer 1 does not hold",
    ),
    "another class": (
        lambda f: mlx_lm_cache.save_prompt_cache(str(f), [mlx_lm_cache.RotatingKVCache(8)] * 2),
        "not a readable mlx-lm prompt cache|only mlx-lm's plain KVCache",
    ),
    "a name that is no class": (
        lambda f: with_arrays(f, lambda a, m: m.update({"1.0": "copy", "1.1": "copy"})),
        "not a readable mlx-lm prompt cache",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage, message):
    file = saved(tmp_path)
    damage(file)
    with pytest.raises(CheckpointError, match=message) as caught:
        KVCache.load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def file_to_mutate(tmp_path_factory) -> tuple[Path, bytes]:
    file = saved(tmp_path_factory.mktemp("mutated"))
    return file, file.read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_no_mutation_of_a_cache_file_crashes_the_loader(file_to_mutate, data):
    file, sound = file_to_mutate
    mutated = bytearray(sound)
    header = 8 + int.from_bytes(sound[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, header + 40))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(mutated)[: data.draw(st.sampled_from([len(sound), len(sound), header, 9]))])
    try:
        shared, _ = KVCache.load(file)
        list(mlx_generate(tiny.tiny_model(0), [1], None, 2, prompt_cache=shared))
    except OrthrusError as error:
        assert "\n" not in str(error)


CACHES = {
    "too few layers": (lambda: [mlx_lm_cache.KVCache()], "prompt_cache has 1 layers, the model 2"),
    "rotating": (
        lambda: [mlx_lm_cache.RotatingKVCache(16), mlx_lm_cache.RotatingKVCache(16)],
        "layer 0 is a RotatingKVCache; only mlx-lm's plain KVCache",
    ),
    "quantised": (
        lambda: [mlx_lm_cache.KVCache(), mlx_lm_cache.QuantizedKVCache()],
        "layer 1 is a QuantizedKVCache",
    ),
}


@pytest.mark.parametrize("make, message", CACHES.values(), ids=CACHES)
def test_caches_of_other_kinds_are_refused(make, message):
    with pytest.raises(RequestError, match=message):
        mlx_generate(tiny.tiny_model(0), [1], None, prompt_cache=make())


def test_another_model_s_cache_is_refused():
    shared = KVCache(LAYERS)
    list(mlx_generate(tiny.tiny_model(0), [1], None, 3, prompt_cache=shared))
    with pytest.raises(RequestError, match="prompt_cache holds 2 heads of 16, the model has 2 of 8"):
        mlx_generate(tiny.tiny_model(0, head_dim=8), [1], None, prompt_cache=shared)


def test_a_cache_goes_with_the_last_reference_to_it_and_not_when_the_collector_comes():
    cache = KVCache(2)
    cache[0].update_and_fetch(rows_of(1, 4, mx.float32), rows_of(1, 4, mx.float32))
    cache.commit(4)
    gone = weakref.ref(cache)
    gc.disable()
    try:
        del cache
        assert gone() is None
    finally:
        gc.enable()

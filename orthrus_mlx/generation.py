"""Generation: token ids (`mlx_generate`), text segments (`stream_generate`), text (`generate`)."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, TypedDict, Unpack, cast

import mlx.core as mx
from mlx_lm.generate import wired_limit
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .cache import KVCache
from .config import MAX_BLOCK_SIZE
from .decoding.alone import Generation
from .decoding.choice import StepwiseChoice
from .decoding.constraint import Constraint
from .decoding.loop import Decoder, Emission
from .decoding.model_policy import make_policy
from .decoding.ngram import NGramIndex
from .decoding.prefill import Progress
from .decoding.stats import DecodeStats
from .errors import RequestError
from .exactness import OFF, exactness_of
from .model import Model
from .sampling import LogitsProcessor, Sampler, Sampling, fresh_seed, require_integer
from .stop_strings import StopStrings

MODES = ("ar", "diffusion", "auto")


class Options(TypedDict, total=False):
    """Keyword options of every generating function.

    mode: "ar" one token a pass, "diffusion" a drafted block a cycle, "auto" (default) whichever is faster here.
    block_size: rows of a block, 2..32; default: the checkpoint's.
    top_p, min_p, min_tokens_to_keep, top_k, xtc_probability, xtc_threshold, xtc_special_tokens: see `Sampling`.
    seed: 32-bit; draws the same tokens in every mode. Default: from MLX's global random state.
    sampler: an mlx-lm sampler, called once per emitted token; takes the place of temperature and filters.
    logits_processors: mlx-lm logits processors; shown the prompt and the tokens before each row.
    prompt_cache: this package's `KVCache` or an mlx-lm prompt cache (a list of its plain `KVCache`); continued
        from, and left holding the prompt and every emitted token, EOS included.
    prefill_step_size: prompt tokens per pass, default 2048.
    prompt_progress_callback: called with (tokens read, tokens in the prompt).
    constraint: a grammar's say in what may stand where (see `orthrus_mlx.decoding.constraint`); for one text.
    exact: False skips the exactness probe and its padding (see `orthrus_mlx.exactness`).
    stats: a `DecodeStats` to count into.
    """

    mode: str
    block_size: int | None
    top_p: float
    min_p: float
    min_tokens_to_keep: int
    top_k: int
    xtc_probability: float
    xtc_threshold: float
    xtc_special_tokens: Sequence[int]
    seed: int | None
    sampler: Sampler | None
    logits_processors: Sequence[LogitsProcessor] | None
    prompt_cache: KVCache | Sequence[Any] | None
    prefill_step_size: int
    prompt_progress_callback: Progress | None
    constraint: Constraint | None
    exact: bool
    stats: DecodeStats | None


@dataclass
class GenerationResponse:
    """One piece of streamed text: mlx-lm's ten fields, and `stats` of the generation so far.

    Attributes:
        text: the next segment; may be empty, never ends inside a character.
        token: the token it ends with.
        logprobs: log-probabilities [V] of that token's position, before filters and temperature.
        from_draft: whether the diffusion view drafted the token.
        prompt_tokens, prompt_tps: the prompt's length and the speed of reading it (tokens per second).
        generation_tokens, generation_tps: the same of the answer, from the end of the prompt on.
        peak_memory: gigabytes (1e9 bytes).
        finish_reason: None until the last response; then "stop" (a stop token or string), "length"
            (`max_tokens`) or "context" (the model's last position is reached).
        stats: counts of the generation so far.
    """

    text: str
    token: int
    logprobs: mx.array
    from_draft: bool
    prompt_tokens: int
    prompt_tps: float
    generation_tokens: int
    generation_tps: float
    peak_memory: float
    finish_reason: str | None
    stats: DecodeStats


def mlx_generate(
    model: Model,
    prompt_tokens: Sequence[int] | mx.array,
    eos_token_id: int | Collection[int] | None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    **options: Unpack[Options],
) -> Iterator[int]:
    """Yield the ids of the model's continuation of `prompt_tokens`; an EOS id ends it and is not yielded.

    Args:
        model: from `load`.
        prompt_tokens: ids, at least one; with a `prompt_cache`, only those after what it holds.
        eos_token_id: one id, several, or None.
        max_tokens: most tokens to yield; -1 goes on until EOS or the end of the model's context.
        temperature: 0 is greedy.
        options: see `Options`.

    Raises:
        RequestError: an argument is out of range, or the prompt leaves no room in the context.
    """
    session = _Session(model, prompt_tokens, _ids(eos_token_id), max_tokens, temperature, **options)
    return (emission.token for emission in session.emissions() if emission.token not in session.stop_tokens)


def stream_generate(
    model: Model,
    tokenizer: Any,
    prompt: str | mx.array | Sequence[int],
    max_tokens: int = 256,
    *,
    temperature: float = 0.0,
    stop: str | Sequence[str] = (),
    **options: Unpack[Options],
) -> Generator[GenerationResponse]:
    """Stream the model's continuation of `prompt` as text, as `mlx_lm.stream_generate` does.

    Args:
        model: from `load`.
        tokenizer: an mlx-lm `TokenizerWrapper` (from `load`) or a Hugging Face tokenizer; its EOS ids end the text.
        prompt: text (special tokens are added unless it begins with the BOS token) or ids.
        max_tokens, temperature: see `mlx_generate`.
        stop: strings that end the text where they appear; they are not part of it.
        options: see `Options`.

    Yields:
        A response per token; the last one has a `finish_reason` and carries the EOS token if that ended the text.
        Closed early, the cache is left valid.

    Raises:
        RequestError: an argument is out of range, or the prompt leaves no room in the context.
    """
    if not isinstance(tokenizer, TokenizerWrapper):
        tokenizer = TokenizerWrapper(tokenizer)
    stops = StopStrings((stop,) if isinstance(stop, str) else stop)
    stop_tokens = _ids(tokenizer.eos_token_ids)
    session = _Session(model, _encode(tokenizer, prompt), stop_tokens, max_tokens, temperature, **options)
    return session.responses(tokenizer, stops)


def generate(model: Model, tokenizer: Any, prompt: str | Sequence[int], verbose: bool = False, **options: Any) -> str:
    """The model's whole continuation of `prompt` as text, as `mlx_lm.generate` gives it.

    Args:
        verbose: print the text while it comes, then mlx-lm's block of figures and the cycle statistics.
        options: those of `stream_generate`.

    Raises:
        RequestError: as `stream_generate`.
    """
    if verbose:
        print("=" * 10)
    text = ""
    response = None
    for response in stream_generate(model, tokenizer, prompt, **options):
        if verbose:
            print(response.text, end="", flush=True)
        text += response.text
    if verbose and response is not None:
        print()
        print_figures(text, response)
    return text


def print_figures(text: str, last: GenerationResponse) -> None:
    """Print mlx-lm's block of figures and the cycle statistics of the `text` that the response `last` ended."""
    print("=" * 10)
    if not text:
        print("No text generated for this prompt")
        return
    print(f"Prompt: {last.prompt_tokens} tokens, {last.prompt_tps:.3f} tokens-per-sec")
    print(f"Generation: {last.generation_tokens} tokens, {last.generation_tps:.3f} tokens-per-sec")
    print(f"Peak memory: {last.peak_memory:.3f} GB")
    print(f"Cycles: {last.stats.summary()}")


class _Session:
    """One request, checked and ready: the decoder, its cache, and the clock."""

    def __init__(
        self,
        model: Model,
        prompt: Sequence[int] | mx.array,
        stop_tokens: frozenset[int],
        max_tokens: int,
        temperature: float,
        *,
        mode: str = "auto",
        block_size: int | None = None,
        seed: int | None = None,
        sampler: Sampler | None = None,
        logits_processors: Sequence[LogitsProcessor] | None = None,
        prompt_cache: KVCache | Sequence[Any] | None = None,
        prefill_step_size: int = 2048,
        prompt_progress_callback: Progress | None = None,
        constraint: Constraint | None = None,
        exact: bool = True,
        stats: DecodeStats | None = None,
        **filters: Any,
    ):
        args = model.args
        unknown = set(filters) - {f.name for f in fields(Sampling)}
        if unknown:
            raise TypeError(
                f"unknown generation option {min(unknown)!r}; known ones: {', '.join(Options.__annotations__)}"
            )
        if "xtc_special_tokens" in filters:
            filters["xtc_special_tokens"] = tuple(filters["xtc_special_tokens"])
        check_ids("xtc_special_tokens", filters.get("xtc_special_tokens", ()), args.vocab_size)
        if seed is None:
            # A user's sampler draws from the same global state: taking from it here would change its tokens.
            seed = 0 if sampler or temperature == 0 else fresh_seed()
        sampling = Sampling(temperature=temperature, seed=seed, **filters)
        require_integer("prefill_step_size", prefill_step_size, 1)

        self.prompt = checked_prompt(prompt, args.vocab_size)
        self.stop_tokens = stop_tokens
        self._lender = None if prompt_cache is None or isinstance(prompt_cache, KVCache) else prompt_cache
        self.cache = _open_cache(prompt_cache, model)
        room = args.context_length - self.cache.offset - len(self.prompt)
        if room < 1:
            raise RequestError(
                f"the prompt ends at token {self.cache.offset + len(self.prompt)}, but the model's context is "
                f"{args.context_length} tokens; shorten the prompt"
            )
        if not isinstance(max_tokens, int) or max_tokens == 0 or max_tokens < -1:
            raise RequestError(f"max_tokens must be a positive integer, or -1 for no limit, not {max_tokens!r}")
        limit = room if max_tokens == -1 else min(max_tokens, room)
        self._at_limit = "context" if limit == room and max_tokens != room else "length"

        rows = block_rows(model, mode, block_size)
        stepwise = (
            StepwiseChoice(sampling, tuple(logits_processors or ()), sampler) if logits_processors or sampler else None
        )
        exactness = exactness_of(model) if exact else OFF
        self.stats = stats if stats is not None else DecodeStats()
        self.stats.mode, self.stats.exactness = mode, str(exactness)
        self._step_size, self._progress = prefill_step_size, prompt_progress_callback
        policy = make_policy(model, mode, rows, exactness, prompt=self.prompt, sampled=temperature != 0)
        decoder = Decoder(
            model,
            self.cache,
            # An opaque sampler's own randomness cannot be shared with the draft: the likeliest token is the best guess.
            sampling=Sampling() if sampler else sampling,
            policy=policy,
            ngrams=NGramIndex() if policy.learns else None,
            exactness=exactness,
            block_size=rows,
            stop_tokens=stop_tokens,
            limit=limit,
            stats=self.stats,
            stepwise=stepwise,
            constraint=constraint,
        )
        self.limit = limit
        self._generation = Generation(model, decoder, exactness)
        self.model = model
        self.prompt_seconds = 0.0
        self._read_at = 0.0

    @property
    def finish_reason(self) -> str:
        return "stop" if self._generation.stopped else self._at_limit

    def emissions(self) -> Generator[Emission]:
        with wired_limit(self.model):
            start = time.perf_counter()
            try:
                self._generation.read(self.prompt, step_size=self._step_size, progress=self._progress)
                self._read_at = time.perf_counter()
                self.prompt_seconds = self._read_at - start
                yield from self._generation.run()
            finally:
                if self._lender is not None:
                    self.cache.write_to(self._lender)

    def responses(self, tokenizer: TokenizerWrapper, stops: StopStrings) -> Generator[GenerationResponse]:
        detokenizer = tokenizer.detokenizer
        emissions = self.emissions()
        try:
            for emission in emissions:
                ends = self._generation.stopped or self._generation.emitted == self.limit
                if emission.token not in self.stop_tokens:
                    detokenizer.add_token(emission.token)
                if ends:
                    detokenizer.finalize()
                text = stops.feed(detokenizer.last_segment)
                reason = "stop" if stops.found else self.finish_reason if ends else None
                if reason and not stops.found:
                    text += stops.flush()
                yield self._response(text, emission, reason)
                if reason:
                    return
        finally:
            # Ends the decoder here and now, not when the garbage collector finds it: the cache is then settled.
            emissions.close()

    def _response(self, text: str, emission: Emission, finish_reason: str | None) -> GenerationResponse:
        count = self._generation.emitted
        return GenerationResponse(
            text=text,
            token=emission.token,
            logprobs=emission.logprobs,
            from_draft=emission.from_draft,
            prompt_tokens=len(self.prompt),
            prompt_tps=len(self.prompt) / max(self.prompt_seconds, 1e-9),
            generation_tokens=count,
            generation_tps=count / max(time.perf_counter() - self._read_at, 1e-9),
            peak_memory=mx.get_peak_memory() / 1e9,
            finish_reason=finish_reason,
            stats=self.stats,
        )


def _ids(tokens: int | Collection[int] | None) -> frozenset[int]:
    if tokens is None:
        return frozenset()
    return frozenset([tokens] if isinstance(tokens, int) else tokens)


def _encode(tokenizer: TokenizerWrapper, prompt: str | mx.array | Sequence[int]) -> Sequence[int] | mx.array:
    if not isinstance(prompt, str):
        return prompt
    plain = tokenizer.bos_token is None or not prompt.startswith(tokenizer.bos_token)
    return tokenizer.encode(prompt, add_special_tokens=plain)


def checked_prompt(prompt: Sequence[int] | mx.array, vocab_size: int) -> list[int]:
    """The prompt's ids. Raises RequestError if there are none, or one is not an id."""
    ids = cast(list[int], prompt.tolist()) if isinstance(prompt, mx.array) else list(prompt)
    if not ids:
        raise RequestError("the prompt is empty; give at least one token")
    check_ids("prompt", ids, vocab_size)
    return [int(token) for token in ids]


def check_ids(name: str, ids: Collection[Any], vocab_size: int) -> None:
    """Raises RequestError if one of `ids` is not an id of the vocabulary."""
    for token in ids:
        if not isinstance(token, Integral) or not 0 <= int(token) < vocab_size:
            raise RequestError(f"{name}: {token!r} is not an id in 0..{vocab_size - 1}")


def _open_cache(prompt_cache: KVCache | Sequence[Any] | None, model: Model) -> KVCache:
    layers, heads, width = len(model.layers), model.layers[0].self_attn.n_kv_heads, model.args.head_dim
    if prompt_cache is None:
        return KVCache(layers)
    if len(prompt_cache) != layers:
        raise RequestError(f"prompt_cache has {len(prompt_cache)} layers, the model {layers}; make a new cache")
    shared = prompt_cache if isinstance(prompt_cache, KVCache) else KVCache.from_mlx_lm(prompt_cache)
    for held in shared.arrays:
        if (held.shape[1], held.shape[3]) != (heads, width):
            raise RequestError(
                f"prompt_cache holds {held.shape[1]} heads of {held.shape[3]}, the model has {heads} of {width}; "
                "make a new cache"
            )
    return shared


def block_rows(model: Model, mode: str, block_size: int | None) -> int:
    """Rows of a block; 1 where the model or the mode drafts nothing."""
    if mode not in MODES:
        raise RequestError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    if block_size is not None:
        require_integer("block_size", block_size, 2, MAX_BLOCK_SIZE)
    own_size = model.args.block_size
    if own_size is None:
        if mode == "diffusion":
            raise RequestError("this model has no diffusion view; use mode='ar', or load an Orthrus checkpoint")
        return 1
    return 1 if mode == "ar" else block_size or own_size

"""A chat: its messages, and a KV cache that is read anew only from where the text changed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

import mlx.core as mx

from ..cache import KVCache
from ..errors import RequestError
from ..exactness import Exactness, exactness_of
from ..generation import GenerationResponse, stream_generate
from ..model import Model
from ..prompts import Message, opens_thought, render, think_markers, with_system
from ..sampling import LogitsProcessor

Progress = Callable[[int, int], None]


class Conversation:
    """Turns of one chat over one cache.

    Before each answer the whole chat is rendered and compared, token by token, with what the cache holds; the
    common prefix is kept and only the rest is read. Whatever changed (a new question, another system prompt, a
    thought that the template drops from earlier turns) costs what comes after it.

    Args:
        model, tokenizer: from `load`.
        system: the system prompt, if any.
        template_options: for the chat template.
        options: for `stream_generate`; its `logits_processors` are shown the whole chat, cached part included.

    Attributes:
        messages: the finished turns, without the system prompt.
        system: may be changed between turns.
        reused, read: prompt tokens of the latest question that the cache held, and those that it did not.
        in_thought: whether the latest answer begins inside a thought.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Any,
        *,
        system: str | None,
        template_options: Mapping[str, Any],
        options: Mapping[str, Any],
    ):
        self.messages: list[Message] = []
        self.system = system
        self.think_markers = think_markers(tokenizer)
        self.reused = self.read = 0
        self.in_thought = False
        self._model, self._tokenizer = model, tokenizer
        self._template_options = dict(template_options)
        self._options = dict(options)
        self._processors: Sequence[LogitsProcessor] = self._options.pop("logits_processors", None) or ()
        self._cache = KVCache(model.args.num_hidden_layers)
        self._cached: list[int] = []

    @property
    def context_used(self) -> int:
        """Tokens in the cache."""
        return self._cache.offset

    @property
    def context_length(self) -> int:
        return self._model.args.context_length

    @property
    def exactness(self) -> Exactness:
        return exactness_of(self._model)

    @property
    def cache_bytes(self) -> int:
        return self._cache.nbytes

    def reset(self) -> None:
        """Forget the turns; the system prompt stays, and so does its part of the cache."""
        self.messages = []

    def answer(self, question: str, progress: Progress | None = None) -> Generator[GenerationResponse]:
        """Stream the answer to `question`; both join `messages` once anything was answered.

        Closed early or interrupted, the part that was answered stays in the chat and the cache stays valid.

        Raises:
            RequestError: the chat with the question does not fit the context, or the template refuses it.
        """
        turns: list[Message] = [*self.messages, {"role": "user", "content": question}]
        prompt = self._prompt(turns)
        self._keep_common_prefix(prompt)
        responses = stream_generate(
            self._model,
            self._tokenizer,
            prompt[self.reused :],
            prompt_cache=self._cache,
            prompt_progress_callback=progress,
            logits_processors=[_behind(prompt[: self.reused], p) for p in self._processors],
            **self._options,
        )
        return self._remembered(turns, prompt, responses)

    def _remembered(
        self, turns: list[Message], prompt: list[int], responses: Generator[GenerationResponse]
    ) -> Generator[GenerationResponse]:
        """`responses`, and at their end, whatever brought it about, the chat and the cache in step with them."""
        text, tokens = "", []
        try:
            with closing(responses):
                for response in responses:
                    text += response.text
                    tokens.append(response.token)
                    yield response
        finally:
            self._note_cached([*prompt, *tokens])
            if tokens:
                self.messages = [*turns, {"role": "assistant", "content": self._closed_thought(text)}]

    def _prompt(self, turns: list[Message]) -> list[int]:
        text = render(self._tokenizer, with_system(self.system, turns), self._template_options)
        self.in_thought = opens_thought(text, self.think_markers)
        prompt = self._tokenizer.encode(text, add_special_tokens=False)
        if len(prompt) >= self.context_length:
            raise RequestError(
                f"the chat and this question come to {len(prompt)} tokens, but the model's context is "
                f"{self.context_length}; reset the chat or ask something shorter"
            )
        return prompt

    def _keep_common_prefix(self, prompt: list[int]) -> None:
        # One token at least must be read: its logits choose the first token of the answer.
        self.reused = min(_common_prefix(self._cached, prompt), len(prompt) - 1)
        self.read = len(prompt) - self.reused
        self._cache.trim(self._cache.offset - self.reused)
        self._cached = self._cached[: self.reused]

    def _note_cached(self, known: list[int]) -> None:
        """Note what the cache holds; an interrupt may have left it ahead of the tokens that arrived here."""
        self._cache.trim(self._cache.offset - len(known))
        self._cached = known[: self._cache.offset]

    def _closed_thought(self, text: str) -> str:
        """`text`, its thought closed if it was cut short, so that the template can tell it from the answer."""
        if self.think_markers is None:
            return text
        opening, closing_marker = self.think_markers
        opened = self.in_thought or opening in text
        return f"{text}\n{closing_marker}\n\n" if opened and closing_marker not in text else text


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _behind(cached: list[int], processor: LogitsProcessor) -> LogitsProcessor:
    """`processor` shown the cached tokens too, as if the whole prompt had been read at once."""
    head = mx.array(cached, dtype=mx.int32)
    return lambda tokens, logits: processor(mx.concatenate([head, tokens.astype(mx.int32)]), logits)

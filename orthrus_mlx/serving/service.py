"""What every protocol shares: the model's names and defaults, and from a checked request to engine requests."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from mlx_lm.sample_utils import make_logits_processors

from ..decoding.constraint import Constraint
from ..prompts import opens_thought, render, think_markers
from ..sampling import Sampling
from .answer import Answer, ParseCall
from .call_stream import CallStream
from .engine import Engine, EngineRequest, TooLarge
from .errors import HttpError
from .grammar import ANY_JSON_OBJECT, GrammarCompiler, GrammarText, behind_thought, either, tool_calls
from .split import exits
from .thinking import ThinkingBudget
from .vocabulary import Vocabulary


@dataclass(frozen=True)
class Defaults:
    """What holds where a request says nothing; names as the flags of `orthrus-mlx serve`."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    mode: str = "auto"
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        body_bytes: size of a request's body.
        prompt_tokens: length of a prompt; None leaves it to the model's context.
        seconds: wall time of a request, from its first byte to the last of the reply.
        keepalive: seconds of silence after which a stream sends a comment.
    """

    body_bytes: int = 8 * 2**20
    prompt_tokens: int | None = None
    seconds: float = 600.0
    keepalive: float = 2.0


@dataclass(frozen=True)
class Tools:
    """Functions the model may call, and whether it must.

    Attributes:
        definitions: in OpenAI's form, for the chat template.
        must: names of the functions one of which has to be called; empty leaves it to the model.
        one: whether the answer ends behind the first call.
    """

    definitions: Sequence[dict[str, Any]] = ()
    must: Sequence[str] = ()
    one: bool = False


@dataclass(frozen=True)
class Plan:
    """One HTTP request, ready to run: the engine's requests, `choices` per prompt, and how their answers are read."""

    requests: Sequence[EngineRequest]
    choices: int
    make_answer: Callable[[], Answer]
    seed: int


@dataclass(frozen=True)
class Prompt:
    """A prompt's tokens.

    Attributes:
        in_thought: whether the answer begins inside a thought.
        may_think: whether it may hold one: a template that switches thinking off writes an empty thought itself.
    """

    tokens: tuple[int, ...]
    in_thought: bool = False
    may_think: bool = False


class Service:
    """The model that is served.

    Args:
        engine: decodes.
        tokenizer: the model's, an mlx-lm `TokenizerWrapper`.
        names: the names that requests may call the model by; the first is the one it goes by.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        names: Sequence[str],
        defaults: Defaults | None = None,
        limits: Limits | None = None,
    ):
        self.engine, self.tokenizer, self.names = engine, tokenizer, tuple(names)
        self.defaults, self.limits = defaults or Defaults(), limits or Limits()
        self.args = engine.model.args
        self.loaded_at = int(time.time())
        self.vocabulary = Vocabulary(tokenizer)
        self.think_markers = think_markers(tokenizer)
        self.tool_markers = (tokenizer.tool_call_start, tokenizer.tool_call_end) if tokenizer.has_tool_calling else None

    @cached_property
    def grammars(self) -> GrammarCompiler:
        return GrammarCompiler(self.tokenizer, self.args.vocab_size)

    def check_model(self, name: str | None) -> str:
        """The name to answer by.

        Raises:
            HttpError: 404, another model is asked for.
        """
        if name is None:
            return self.names[0]
        if name not in self.names:
            message = f"model: {name!r} is not served here; served: {', '.join(self.names)}"
            raise HttpError(404, message, param="model", code="model_not_found")
        return name

    def chat_prompt(
        self, messages: Sequence[dict[str, Any]], template_options: Mapping[str, Any] | None, tools: Tools
    ) -> Prompt:
        """The chat as the model's template writes it.

        Raises:
            RequestError: the template refuses the messages.
            HttpError: tools for a model that has none; a prompt beyond the limit.
        """
        if tools.definitions and self.tool_markers is None:
            raise HttpError(400, "tools: this model's chat template knows no tools", param="tools")
        options = {**self.defaults.chat_template_args, **(template_options or {})}
        reserved = options.keys() & {"tokenize", "add_generation_prompt", "tools", "chat_template", "return_dict"}
        if reserved:
            name = f"chat_template_kwargs.{min(reserved)}"
            raise HttpError(400, f"{name}: not supported", param=name, code="unsupported_parameter")
        text = render(self.tokenizer, messages, options, tools.definitions)
        in_thought = opens_thought(text, self.think_markers)
        may_think = self.think_markers is not None and not text.rstrip().endswith(self.think_markers[1])
        return Prompt(self.encode(text, special=False), in_thought, may_think)

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        """The tokens of a prompt; `special` adds those that the tokenizer puts around a text.

        Raises:
            HttpError: the text is not well-formed, or too long.
        """
        limit = self.prompt_limit
        try:
            text.encode()
        except UnicodeEncodeError:
            raise HttpError(400, "the prompt holds half of a surrogate pair, which is no character") from None
        return self.check_length(tuple(self.tokenizer.encode(text, add_special_tokens=special)), limit)

    @property
    def prompt_limit(self) -> int:
        """Most tokens of a prompt."""
        own = self.args.context_length - 1
        return own if self.limits.prompt_tokens is None else min(own, self.limits.prompt_tokens)

    def check_length(self, tokens: tuple[int, ...], limit: int | None = None) -> tuple[int, ...]:
        """Raises TooLarge unless the prompt is within the limit."""
        limit = self.prompt_limit if limit is None else limit
        if len(tokens) > limit:
            raise TooLarge(f"the prompt has {len(tokens)} tokens, more than the {limit} that are possible here")
        return tokens

    def plan(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int | None,
        sampling: Mapping[str, Any],
        seed: int | None,
        processors: Mapping[str, Any] | None = None,
        choices: int = 1,
        stops: Sequence[str] = (),
        grammar: GrammarText | None = None,
        tools: Tools | None = None,
        thinking_budget: int | None = None,
        stream: bool = False,
        chat: bool = True,
        logprobs: int = 0,
        mode: str | None = None,
        block_size: int | None = None,
    ) -> Plan:
        """Everything the engine needs. Compiles the grammar, so it is not for the event loop's thread.

        Args:
            max_tokens, sampling, mode: where they say nothing, the defaults hold; `sampling` has `Sampling`'s names.
            seed: of the first choice, modulo 2**32; the others count on from it. Default: a random one.
            processors: for mlx-lm's `make_logits_processors`.
            thinking_budget: most tokens of thoughts.
            stream: whether tool calls are to be told of while they are written.
            chat: whether thoughts and tool calls are taken out of the text.

        Raises:
            RequestError, HttpError: a parameter is out of range or cannot be honoured.
        """
        seed = secrets.randbits(32) if seed is None else seed % 2**32
        tools = tools or Tools()
        in_thought = prompts[0].in_thought
        chosen = Sampling(**{**self._sampling_defaults(), **{k: v for k, v in sampling.items() if v is not None}})
        bias = (processors or {}).get("logit_bias") or {}
        for token in bias:
            if not 0 <= token < self.args.vocab_size:
                message = f"logit_bias: token {token} is not an id in 0..{self.args.vocab_size - 1}"
                raise HttpError(400, message, param="logit_bias")
        if tools.must or (tools.definitions and grammar is not None):
            grammar = self._call_grammar(tools, grammar)
        if grammar is not None and self.think_markers and prompts[0].may_think:
            think = self.grammars.markers(*self.think_markers)
            grammar = behind_thought(grammar, think, open_already=in_thought)
        stop_tokens = frozenset(self.tokenizer.eos_token_ids)
        base = EngineRequest(
            prompt=(),
            max_tokens=max_tokens or self.defaults.max_tokens,
            sampling=chosen,
            stop_tokens=stop_tokens,
            logits_processors=tuple(make_logits_processors(**{k: v for k, v in (processors or {}).items() if v})),
            constraint=self._constraint(grammar, thinking_budget, in_thought),
            logprobs=logprobs,
            mode=mode or self.defaults.mode,
            block_size=block_size,
        )
        requests = [
            replace(base, prompt=prompt.tokens, sampling=replace(chosen, seed=(seed + i) % 2**32))
            for prompt in prompts
            for i in range(choices)
        ]
        calls = self.tool_markers if chat and tools.definitions else None
        names = frozenset(definition["function"]["name"] for definition in tools.definitions)
        make_answer = partial(
            Answer,
            self.tokenizer,
            stop_tokens,
            stops=tuple(stops),
            markers=exits(self.think_markers if chat else None, calls),
            in_thought=in_thought,
            tool_markers=calls,
            parse_call=self._parser(tools) if calls else None,
            one_call=tools.one,
            follow_calls=partial(CallStream, names) if calls and stream and self._calls_are_json else None,
        )
        return Plan(requests, choices, make_answer, seed)

    def _constraint(
        self, grammar: GrammarText | None, thinking_budget: int | None, in_thought: bool
    ) -> Callable[[], Constraint] | None:
        compiled = self.grammars.compile(grammar) if grammar is not None else None
        if thinking_budget is None or self.think_markers is None:
            return compiled
        try:
            start, end = self.tokenizer.think_start_id, self.tokenizer.think_end_id
        except ValueError:
            message = "thinking.budget_tokens: not possible with this model, whose thoughts end with several tokens"
            raise HttpError(400, message, param="thinking.budget_tokens") from None
        size = self.args.vocab_size
        return lambda: ThinkingBudget(
            start, end, thinking_budget, size, inside=in_thought, inner=compiled() if compiled else None
        )

    def _sampling_defaults(self) -> dict[str, Any]:
        d = self.defaults
        return {"temperature": d.temperature, "top_p": d.top_p, "top_k": d.top_k, "min_p": d.min_p}

    def xtc_special_tokens(self) -> tuple[int, ...]:
        """As in mlx-lm: XTC must not take away the ways to end a line or the text."""
        return (*self.tokenizer.encode("\n", add_special_tokens=False), *self.tokenizer.eos_token_ids)

    @property
    def _calls_are_json(self) -> bool:
        parser = self.tokenizer.tool_parser
        return parser is not None and parser.__module__ == _JSON_CALLS

    def _call_grammar(self, tools: Tools, grammar: GrammarText | None) -> GrammarText:
        """What enforces a call; where none is demanded, the answer's `grammar` or calls."""
        if tools.must and grammar is not None:
            raise HttpError(400, "response_format: not together with a tool_choice that demands a call")
        if not self._calls_are_json:
            name = "tool_choice" if tools.must else "response_format"
            raise HttpError(400, f"{name}: this model's form of calls cannot be part of a grammar", param=name)
        functions = [d["function"] for d in tools.definitions if not tools.must or d["function"]["name"] in tools.must]
        chosen = [(f["name"], f.get("parameters") or ANY_JSON_OBJECT) for f in functions]
        opening, closing = self.tool_markers  # type: ignore[misc]
        calls = tool_calls(opening, closing, chosen, several=not tools.one)
        return calls if grammar is None else either(grammar, calls)

    def _parser(self, tools: Tools) -> ParseCall:
        names = {d["function"]["name"] for d in tools.definitions}

        def parse(text: str) -> Any:
            parsed = self.tokenizer.tool_parser(text, json.loads(json.dumps(tools.definitions)))
            for call in parsed if isinstance(parsed, list) else [parsed]:
                if call["name"] not in names:
                    raise ValueError("a call of a function that was not offered")
            return parsed

        return parse


_JSON_CALLS = "mlx_lm.tool_parsers.json_tools"

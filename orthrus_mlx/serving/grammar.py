"""Structured output: JSON, JSON schema, regular expression and choice, as masks over the vocabulary (llguidance).

A grammar is compiled once a request and then follows the tokens. For a block of drafts it gives one mask a row: the
tokens allowed where the drafts before that row have been accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from llguidance.numpy import fill_next_token_bitmask

from ..errors import RequestError

# Between two tokens of JSON: a line break and some indentation at most, or a weak model fills its answer with blanks.
_JSON_OPTIONS = {"whitespace_pattern": r"\n?[ ]{0,32}"}
MOST_MULTIPLE = 10_000
"""The automaton of a multiple has as many states: 10,007 took 0.1 s to compile, 999,983 half a minute."""
ANY_JSON_OBJECT = {"type": "object"}


@dataclass(frozen=True)
class GrammarText:
    """A grammar in llguidance's own form: named parts that refer to each other by @name; `start` is the first."""

    parts: tuple[dict[str, Any], ...]

    def serialized(self) -> str:
        return json.dumps({"grammars": self.parts})


@dataclass(frozen=True)
class Markers:
    """What opens and closes a thought; `special` has their ids where the tokenizer keeps them out of the text."""

    opening: str
    closing: str
    special: tuple[int, int] | None = None


def json_schema(schema: dict[str, Any]) -> GrammarText:
    """JSON of `schema`.

    Raises:
        RequestError: a `multipleOf` that would take too long to compile.
    """
    if (largest := max(_multiples(schema), default=0)) > MOST_MULTIPLE:
        raise RequestError(f"response_format: multipleOf of {largest} is more than {MOST_MULTIPLE}, the most supported")
    return _single(LLMatcher.grammar_from_json_schema(schema, overrides=_JSON_OPTIONS))  # type: ignore[arg-type]


def regex(pattern: str) -> GrammarText:
    """Text that matches `pattern` (Rust's regex syntax without look-around) as a whole."""
    return _single(LLMatcher.grammar_from_regex(pattern))


def choice(texts: Sequence[str]) -> GrammarText:
    """One of `texts`."""
    # One lexeme: as rules of the grammar, a few thousand would be more than the parser's row holds.
    return _lark("start: CHOICE\nCHOICE: " + " | ".join(map(json.dumps, texts)))


def tool_calls(start: str, end: str, tools: Sequence[tuple[str, dict[str, Any]]], *, several: bool) -> GrammarText:
    """One call, or several, of `tools` (name, JSON schema of the arguments), in the form that Qwen3 is trained on."""
    names = [f"tool{i}" for i in range(len(tools))]
    more = ' ("\\n" call)*' if several else ""
    opening, closing = json.dumps(f"{start}\n"), json.dumps(f"\n{end}")
    lines = [f"start: call{more}", f"call: {opening} ({' | '.join(names)}) {closing}"]
    parts = []
    for rule, (name, schema) in zip(names, tools, strict=True):
        head = f'{{"name": {json.dumps(name)}, "arguments": '
        lines.append(f'{rule}: {json.dumps(head)} @{rule}_arguments "}}"')
        parts.append(json_schema(schema).parts[0] | {"name": f"{rule}_arguments"})
    return GrammarText((*_lark("\n".join(lines)).parts, *parts))


def either(left: GrammarText, right: GrammarText) -> GrammarText:
    """What `left` or `right` allows; their parts must not share names."""
    start = _lark("start: @left | @right").parts
    first = (left.parts[0] | {"name": "left"}, right.parts[0] | {"name": "right"})
    return GrammarText((*start, *first, *left.parts[1:], *right.parts[1:]))


def behind_thought(grammar: GrammarText, think: Markers, *, open_already: bool) -> GrammarText:
    """`grammar` after a thought, which may be left out unless the prompt has opened it."""
    first, *others = grammar.parts
    anything = "/(?s:.)*/"
    if think.special is None:
        opening, end = json.dumps(think.opening), ""
        rule = f"thought[suffix={json.dumps(think.closing)}]"
    else:
        opening, end = f"<[{think.special[0]}]>", f"<[{think.special[1]}]>"
        rule = "thought"
    lines = [
        f"start: {'thought' if open_already else 'thought?'} gap @answer",
        "gap: /\\n{0,2}/",
        f"{rule}: {'' if open_already else opening} {anything} {end}",
    ]
    return GrammarText((*_lark("\n".join(lines)).parts, first | {"name": "answer"}, *others))


class Grammar:
    """The state of one answer under a grammar: a `Constraint` of the decode loop."""

    def __init__(self, matcher: LLMatcher, vocabulary: int):
        self._matcher, self._words = matcher, -(-vocabulary // 32)

    def allowed(self, drafts: Sequence[int]) -> tuple[int, np.ndarray]:
        """See `Constraint.allowed`; masks have ceil(V/32) words."""
        n = self._matcher.validate_tokens(list(drafts)) if drafts else 0
        masks = np.zeros((n + 1, self._words), dtype=np.uint32)
        ahead = self._matcher.deep_copy() if n else self._matcher
        self._fill(ahead, masks, 0)
        for row in range(1, n + 1):
            ahead.consume_token(drafts[row - 1])
            self._fill(ahead, masks, row)
        return n, masks

    def advance(self, tokens: Sequence[int]) -> None:
        """Follow tokens that were emitted.

        Raises:
            RequestError: the grammar does not allow them (or grew too complex to follow).
        """
        for token in tokens:
            if not self._matcher.consume_token(token):
                raise RequestError(f"response_format: the grammar cannot be followed ({_reason(self._matcher)})")

    def _fill(self, matcher: LLMatcher, masks: np.ndarray, row: int) -> None:
        fill_next_token_bitmask(matcher, masks.view(np.int32), row)
        if matcher.is_error():
            raise RequestError(f"response_format: the grammar cannot be followed ({_reason(matcher)})")


class GrammarCompiler:
    """Compiles grammars for one tokenizer.

    Args:
        tokenizer: the model's, an mlx-lm `TokenizerWrapper`.
        vocabulary: V of the logits.

    Raises:
        RequestError: the tokenizer is of a kind that cannot be constrained.
    """

    def __init__(self, tokenizer: Any, vocabulary: int):
        self._vocabulary = vocabulary
        self._encode = partial(tokenizer.encode, add_special_tokens=False)
        try:
            self._tokenizer: LLTokenizer = from_tokenizer(
                tokenizer._tokenizer, n_vocab=vocabulary, eos_token=sorted(tokenizer.eos_token_ids)
            )
        except ValueError as error:
            raise RequestError(f"response_format: not possible with this model's tokenizer ({error})") from error

    def markers(self, opening: str, closing: str) -> Markers:
        """The markers as this tokenizer sees them."""
        ids = tuple(self._encode(text) for text in (opening, closing))
        special = all(len(found) == 1 and self._tokenizer.is_special_token(found[0]) for found in ids)
        return Markers(opening, closing, (ids[0][0], ids[1][0]) if special else None)

    def compile(self, grammar: GrammarText) -> Callable[[], Grammar]:
        """What makes fresh states of the grammar. Takes up to seconds for a large one, without the GIL.

        Raises:
            RequestError: the schema or pattern is invalid, or has parts that are not supported.
        """
        matcher = LLMatcher(self._tokenizer, grammar.serialized(), log_level=0)
        if matcher.is_error():
            raise RequestError(f"response_format: {_reason(matcher)}")
        # Some limits are met by the first mask only: better here than in the engine.
        Grammar(matcher.deep_copy(), self._vocabulary).allowed(())
        return lambda: Grammar(matcher.deep_copy(), self._vocabulary)


def _multiples(schema: Any) -> Iterator[float]:
    """Every `multipleOf` in a schema, scaled to an integer as the compiler scales it."""
    todo = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            multiple = node.get("multipleOf")
            if isinstance(multiple, int | float) and multiple > 0:
                yield Fraction(str(multiple)).numerator
            todo += node.values()
        elif isinstance(node, list):
            todo += node


def _reason(matcher: LLMatcher) -> str:
    return " ".join(matcher.get_error().split()) or "it has ended"


def _single(serialized: str) -> GrammarText:
    return GrammarText(tuple(json.loads(serialized)["grammars"]))


def _lark(text: str) -> GrammarText:
    return GrammarText(({"lark_grammar": text},))

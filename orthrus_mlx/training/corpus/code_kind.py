"""One kind of small Python function: how it is asked for, written, explained and tested."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from orthrus_mlx.training.corpus.core import Sampler

Names = dict[str, Any]  # what the places $f, $a, $b, $k, ... of a text stand for

_PLACE = re.compile(r"\$(\w)")


@dataclass(frozen=True)
class Kind:
    """`$f` is the function's name, `$a $b $c` its arguments, any other place a constant of `constants`.

    `does` completes "a function that ..."; `cases` are argument lists whose results `oracle` computes
    (it gets the constants as keywords), independently of `code`.
    """

    name: str
    functions: Sequence[str]
    arguments: Sequence[Sequence[str]]
    does: Sequence[str]
    code: str
    explain: str
    cases: Sequence[Sequence[Any]]
    oracle: Callable[..., Any]
    constants: Mapping[str, Sampler]

    def default_names(self) -> Names:
        """The function and argument names used when the request gives none."""
        return {"f": self.functions[0], **self.argument_names(0)}

    def argument_names(self, index: int) -> Names:
        """The places `a`, `b`, ... for one of the argument namings."""
        return dict(zip("abc", self.arguments[index], strict=False))

    def draw_constants(self, rng: Random) -> Names:
        """Values for the constants."""
        return {place: sample(rng) for place, sample in self.constants.items()}

    def results(self, names: Names) -> list[dict[str, Any]]:
        """The checks: argument lists with the results they must give."""
        constants = {place: names[place] for place in self.constants}
        return [{"args": list(args), "result": self.oracle(*args, **constants)} for args in self.cases]


KINDS: dict[str, Kind] = {}


def kind(
    functions: str,
    arguments: str,
    does: Sequence[str],
    code: str,
    explain: str,
    cases: Sequence[Sequence[Any]],
    oracle: Callable[..., Any],
    **constants: Sampler,
) -> None:
    """Register a kind under its first function name; `arguments` are namings separated by `|`."""
    names = functions.split()
    assert names[0] not in KINDS, names[0]
    namings = [part.split() for part in arguments.split("|")]
    KINDS[names[0]] = Kind(names[0], names, namings, does, code.strip(), explain, cases, oracle, constants)


def fill(text: str, names: Names) -> str:
    """`text` with its places filled."""
    return _PLACE.sub(lambda match: str(names[match.group(1)]), text)

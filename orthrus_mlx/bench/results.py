"""The measurements of a benchmark, kept in `results.json` round by round: a run that was broken off goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic_file import write_json
from ..errors import BenchmarkError

FILE = "results.json"
FORMAT = 1


@dataclass
class Measured:
    """One lane's part of a round.

    Attributes:
        tokens: of the answer.
        differs_at: first position where it differs from the round's AR answer; None where equal, and where `compared`
            says that there was none to compare with.
        prompt_seconds, first_token_seconds, seconds, memory, stats: see `lanes.Run`.
    """

    tokens: int
    prompt_seconds: float
    first_token_seconds: float
    seconds: float
    memory: int
    compared: bool
    differs_at: int | None
    stats: dict[str, Any] | None = None

    @property
    def decoded(self) -> int:
        """Tokens that took a pass of their own, not one that the prompt's last pass gave."""
        return self.tokens - (self.stats or {}).get("given", 0)

    @property
    def decode_seconds(self) -> float:
        """From the moment when all of the prompt but its last token is read, or all where that gave a token."""
        return max(self.seconds - self.prompt_seconds, 1e-9)

    @property
    def tokens_per_second(self) -> float:
        """Without the prompt, and what it gave."""
        return self.decoded / self.decode_seconds

    @property
    def tokens_per_second_with_prompt(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)


@dataclass
class Round:
    """One prompt answered once by every lane, in the order of `lanes`."""

    case: str
    kind: str
    item: str
    trial: int
    prompt_tokens: int
    load: float
    lanes: dict[str, Measured]
    context: int | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.case, self.item, self.trial


@dataclass
class Results:
    """All rounds of a benchmark.

    Attributes:
        settings: what every measurement in here has in common; a run with other settings may not add to it.
        about: the header of the report, for people.
        folder: where it is kept; None keeps it in memory.
    """

    settings: dict[str, Any]
    about: dict[str, str]
    folder: Path | None = None
    rounds: list[Round] = field(default_factory=list)

    def done(self) -> set[tuple[str, str, int]]:
        return {r.key for r in self.rounds}

    def add(self, round: Round) -> None:
        """Keep a round, on disk too where there is a folder."""
        self.rounds.append(round)
        self.save()

    def save(self) -> None:
        if self.folder is not None:
            rounds = [{**vars(r), "lanes": {name: vars(m) for name, m in r.lanes.items()}} for r in self.rounds]
            value = {"format": FORMAT, "settings": self.settings, "about": self.about, "rounds": rounds}
            write_json(self.folder / FILE, value)


def open_results(folder: Path | None, settings: dict[str, Any], about: dict[str, str]) -> Results:
    """New results, or those already in `folder` to be continued.

    Raises:
        BenchmarkError: what is there was measured with other settings, or is no file of ours.
    """
    if folder is None or not (folder / FILE).exists():
        return Results(settings, about, folder)
    file = folder / FILE
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        found, version = value["settings"], value["format"]
        rounds = [_round(r) for r in value["rounds"]] if version == FORMAT else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{file}: not the results of a benchmark ({error}); choose another --output") from error
    if version != FORMAT:
        raise BenchmarkError(f"{file}: format {version}, this version writes {FORMAT}; choose another --output")
    for name in {**found, **settings}:
        if found.get(name) != settings.get(name):
            raise BenchmarkError(
                f"{file} was measured with another {name} ({_shown(found.get(name))}, now "
                f"{_shown(settings.get(name))}); choose another --output, or delete the file to start afresh"
            )
    return Results(settings, about, folder, rounds)


def _round(value: dict[str, Any]) -> Round:
    return Round(**{**value, "lanes": {name: Measured(**m) for name, m in value["lanes"].items()}})


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""Plants faults in kernel text and tells which of them a check notices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.emulator.errors import CompileError, EmulatorError, KernelFault
from tests.emulator.metal import emulated_metal
from tests.emulator.preprocess import KERNEL, uncommented

BARRIER = r"\b(?:threadgroup|simdgroup)_barrier\s*\([^;]*?\)(?=\s*;)"


@dataclass
class Mutation:
    """A fault: `pattern` (a regular expression) becomes `replacement` in generated kernel texts.

    occurrence: which match is replaced, from 0; None replaces all. kernel: only kernels whose name holds it.
    `applied` counts the texts changed so far. Comments do not match. Usable as emulated_metal(change=...).
    """

    description: str
    pattern: str
    replacement: str
    occurrence: int | None = None
    kernel: str = ""
    applied: int = field(default=0, compare=False)

    def __call__(self, text: str) -> str:
        code = uncommented(text)
        name = KERNEL.search(code)
        if not name or self.kernel not in name.group(1):
            return text
        matches = list(re.finditer(self.pattern, code))
        if self.occurrence is not None:
            matches = matches[self.occurrence : self.occurrence + 1]
        for match in reversed(matches):
            text = text[: match.start()] + match.expand(self.replacement) + text[match.end() :]
        self.applied += bool(matches)
        return text


def exact(description: str, old: str, new: str, *, occurrence: int | None = None, kernel: str = "") -> Mutation:
    """The Mutation that replaces the literal text `old` by `new`."""
    return Mutation(description, re.escape(old), new.replace("\\", r"\\"), occurrence, kernel)


def dropped_barriers(text: str) -> list[Mutation]:
    """One Mutation for each barrier call of a generated text: that call left out."""
    code = uncommented(text)
    name = KERNEL.search(code)
    if not name:
        raise EmulatorError("text holds no kernel: pass the generated text (Launch.text)")
    return [
        Mutation(
            f"{name.group(1)}: without {match.group()} at line {code.count(chr(10), 0, match.start()) + 1}",
            BARRIER,
            "(void)0",
            number,
            name.group(1),
        )
        for number, match in enumerate(re.finditer(BARRIER, code))
    ]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: `verdict` is "fault" (the checked build reported it), "wrong" (the check
    raised), "refused" (it does not compile), "survived", or "not applied" (no launched text matched)."""

    mutation: Mutation
    verdict: str
    message: str


def try_mutations(mutations: Iterable[Mutation], check: Callable[[], object], **settings) -> list[Outcome]:
    """Runs `check` once for each mutation, inside emulated_metal(checked=True, change=mutation, **settings).

    `check` runs kernels and raises AssertionError where their results are wrong.
    """
    outcomes = []
    for mutation in mutations:
        mutation.applied = 0
        verdict, message = "survived", ""
        try:
            with emulated_metal(**{"checked": True, **settings, "change": mutation}):
                check()
        except KernelFault as fault:
            verdict, message = "fault", str(fault.findings[0])
        except CompileError as error:
            verdict, message = "refused", str(error)
        except (AssertionError, EmulatorError) as error:
            verdict, message = "wrong", str(error).strip().split("\n")[0]
        if not mutation.applied:
            verdict = "not applied"
        outcomes.append(Outcome(mutation, verdict, message))
    return outcomes

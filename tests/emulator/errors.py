"""What the emulator reports."""

from __future__ import annotations

from dataclasses import dataclass


class EmulatorError(Exception):
    """The emulator could not do what was asked; the message says what and the way out."""


class CompileError(EmulatorError):
    """The kernel text does not compile. The message holds the compiler's first errors with kernel lines."""


@dataclass(frozen=True)
class Finding:
    """One fault of a kernel run.

    `kind` is one of the names in FAULTS; `file` and `line` point into the kernel text ("" and 0 when
    unknown); `threadgroup` and `thread` are positions, None when the fault belongs to no thread.
    """

    kind: str
    message: str
    file: str = ""
    line: int = 0
    threadgroup: tuple[int, int, int] | None = None
    thread: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else ""
        who = f" (thread {self.thread} of threadgroup {self.threadgroup})" if self.thread else ""
        return f"{place}{self.kind}: {self.message}{who}"


class KernelFault(EmulatorError):
    """A kernel did something undefined. `findings` lists what, in the order met."""

    def __init__(self, kernel: str, findings: list[Finding]):
        self.kernel = kernel
        self.findings = findings
        lines = "\n  ".join(str(finding) for finding in findings)
        super().__init__(f"kernel {kernel!r}: {len(findings)} fault(s)\n  {lines}")

    @property
    def kinds(self) -> set[str]:
        return {finding.kind for finding in self.findings}


# In the order of the enum Fault in cpp/runtime.h, from 1.
FAULTS = (
    "divergence",
    "barrier flags",
    "shuffle",
    "threadgroup memory",
    "out of bounds",
    "write to input",
    "uninitialised read",
    "unwritten output",
    "race",
    "misaligned",
    "arithmetic",
    "crash",
)

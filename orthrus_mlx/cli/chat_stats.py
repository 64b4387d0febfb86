"""What an answer cost, on one line, and a chat's sums."""

from __future__ import annotations

from dataclasses import dataclass

from ..generation import GenerationResponse
from ..units import counted


def answer_line(last: GenerationResponse) -> str:
    """Speed, tokens per cycle, accepted and verified drafts, and exactness of the answer that `last` ends."""
    stats = last.stats
    return (
        f"[{counted(last.generation_tokens, 'token')}, {last.generation_tps:.1f} tok/s | "
        f"{stats.tokens_per_cycle:.2f} tokens per cycle | "
        f"{stats.accepted}/{stats.drafted} drafts accepted | {stats.exactness}]"
    )


@dataclass
class ChatStats:
    """Sums over the answers of a chat; `read` and `reused` count prompt tokens."""

    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cycles: int = 0
    drafted: int = 0
    accepted: int = 0
    ar_passes: int = 0
    diffusion_passes: int = 0
    read: int = 0
    reused: int = 0

    def count(self, last: GenerationResponse, *, read: int, reused: int) -> None:
        """Add the answer that `last` ends, to a prompt of which the cache held `reused` tokens."""
        stats = last.stats
        self.answers += 1
        self.tokens += last.generation_tokens
        self.seconds += last.generation_tokens / last.generation_tps
        self.cycles += stats.cycles
        self.drafted += stats.drafted
        self.accepted += stats.accepted
        self.ar_passes += stats.ar_passes
        self.diffusion_passes += stats.diffusion_passes
        self.read += read
        self.reused += reused

    def lines(self) -> list[str]:
        """The sums, a line for each kind."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        per_cycle = self.tokens / self.cycles if self.cycles else 0.0
        return [
            f"{counted(self.answers, 'answer')}: {counted(self.tokens, 'token')} "
            f"in {self.seconds:.2f} s, {rate:.1f} tok/s",
            f"{counted(self.cycles, 'cycle')}, {per_cycle:.2f} tokens per cycle, "
            f"{self.accepted}/{self.drafted} drafts accepted",
            f"passes: {self.ar_passes} autoregressive, {self.diffusion_passes} diffusion",
            f"prompts: {counted(self.read, 'token')} read, {self.reused} found in the cache",
        ]

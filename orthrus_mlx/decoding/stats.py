"""What a generation did, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..units import counted
from ..weights import DIFFUSION
from .steps import Outcome, Prediction


@dataclass
class DecodeStats:
    """Counts of one generation. A *cycle* is one target pass that emits tokens; a one-token step is a cycle of one.

    Attributes:
        mode: "ar", "diffusion" or "auto".
        exactness: what the probe showed for the target passes (see `orthrus_mlx.exactness`).
        tokens: tokens emitted.
        given: of these, the ones whose logits came with the prompt: the first one, or none.
        cycles: target passes that emitted them.
        steps: cycles by kind: "ar", "chain", "tree", "ngram" (see `orthrus_mlx.decoding.steps`).
        ar_passes, diffusion_passes: forward passes by view. Of the prompt's, only one that gave the first token counts.
        drafted: draft tokens that went through verification.
        accepted: of those, the ones that were emitted.
        accepted_at: accepted_at[i] counts drafts of position i behind the pending token that were accepted;
            drafted_at[i] those that were verified (a tree has several).
        target_rows: target passes by the number of rows they carried.
        draft_rows: diffusion passes by the number of rows they carried.
        host_syncs: times the host waited for the device.
        seconds: wall time of the cycles, the consumer's not counted.
        predicted_tokens, predicted_seconds: what the policy expected of its cycles, where it predicts.
        plain_seconds, predicted_plain_seconds: what one-token steps would have taken for as many tokens, emitted and
            predicted, by the policy's cost table.
    """

    mode: str = "ar"
    exactness: str = ""
    tokens: int = 0
    given: int = 0
    cycles: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    ar_passes: int = 0
    diffusion_passes: int = 0
    drafted: int = 0
    accepted: int = 0
    drafted_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    target_rows: dict[int, int] = field(default_factory=dict)
    draft_rows: dict[int, int] = field(default_factory=dict)
    host_syncs: int = 0
    seconds: float = 0.0
    predicted_tokens: float = 0.0
    predicted_seconds: float = 0.0
    plain_seconds: float = 0.0
    predicted_plain_seconds: float = 0.0

    @property
    def tokens_per_cycle(self) -> float:
        return self.tokens / self.cycles if self.cycles else 0.0

    @property
    def tokens_per_forward(self) -> float:
        """Tokens per pass of either view (the paper's TPF)."""
        passes = self.ar_passes + self.diffusion_passes
        return self.tokens / passes if passes else 0.0

    @property
    def acceptance(self) -> float:
        """Accepted / drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def gain(self) -> float:
        """One-token steps' time by the cost table over the time that was taken; 0 where nothing is predicted."""
        return self.plain_seconds / self.seconds if self.plain_seconds and self.seconds else 0.0

    @property
    def predicted_gain(self) -> float:
        """The gain that the policy expected of what it chose."""
        return self.predicted_plain_seconds / self.predicted_seconds if self.predicted_seconds else 0.0

    def summary(self) -> str:
        """The counts on one line."""
        return (
            f"{counted(self.cycles, 'cycle')}, {self.tokens_per_cycle:.2f} tokens per cycle, "
            f"accepted {self.accepted}/{self.drafted} drafts, "
            f"passes {self.ar_passes} ar + {self.diffusion_passes} diffusion, {self.exactness}"
        )

    def count_token(self, draft: int | None) -> None:
        """Book an emitted token: the draft of that position, or the target's own choice (None)."""
        self.tokens += 1
        if draft is not None:
            self.accepted += 1
            self.accepted_at[draft] += 1

    def count_pass(self, view: str) -> None:
        """Book a forward pass."""
        if view == DIFFUSION:
            self.diffusion_passes += 1
        else:
            self.ar_passes += 1

    def count_draft(self, rows: int) -> None:
        """Book a diffusion pass over `rows` rows."""
        self.draft_rows[rows] = self.draft_rows.get(rows, 0) + 1

    def count_cycle(self, kind: str, depths: Sequence[int]) -> None:
        """Book a target pass over the pending token (depth 0) and drafts at these `depths` behind it."""
        self.cycles += 1
        self.steps[kind] = self.steps.get(kind, 0) + 1
        self.target_rows[len(depths)] = self.target_rows.get(len(depths), 0) + 1
        if len(depths) == 1:
            return
        self.drafted += len(depths) - 1
        missing = max(depths) - len(self.drafted_at)
        self.drafted_at.extend([0] * missing)
        self.accepted_at.extend([0] * missing)
        for depth in depths[1:]:
            self.drafted_at[depth - 1] += 1

    def count_outcome(self, outcome: Outcome, prediction: Prediction | None) -> None:
        """Book how long a cycle took and what was expected of it."""
        self.seconds += outcome.seconds
        if prediction is not None:
            self.predicted_tokens += prediction.tokens
            self.predicted_seconds += prediction.ms / 1e3
            self.plain_seconds += outcome.tokens * prediction.plain_ms / 1e3
            self.predicted_plain_seconds += prediction.tokens * prediction.plain_ms / 1e3

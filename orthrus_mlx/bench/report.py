"""The report: the same tables as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..units import byte_count, counted
from .lanes import MLX_LM
from .results import Results
from .runner import mismatches
from .summary import BASELINES, CaseSummary, LaneSummary, Spread, summarise, verdicts

PLOTS = {
    "speedup.png": "Speed-up by workload",
    "acceptance.png": "Acceptance by position in the block",
    "context.png": "Speed against context length",
}
_MOST_SHOWN = 4
_DRAFT_NOTE = (
    "a cycle is a pass that verifies, by kind; TPF is tokens per pass of either view; rows are those of a pass, x how "
    "many passes had so many"
)
_WHOLE_NOTE = "ratios with the prompt counted; memory is the peak above what was held before the answer (the weights)"


@dataclass
class Section:
    """A heading, a table (its first row is the header) and lines of text."""

    title: str
    table: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def sections(results: Results) -> list[Section]:
    """The whole report."""
    cases = summarise(results)
    return [
        Section("Machine and settings", lines=[f"{label}: {value}" for label, value in _about(results)]),
        Section("Speed", _speed_table(cases), _speed_notes(cases)),
        Section("Whole answers", _whole_table(cases), [_WHOLE_NOTE]),
        Section("Drafts", _draft_table(cases), [_DRAFT_NOTE]),
        Section("Promises", lines=_promises(results, cases)),
    ]


def as_text(found: Sequence[Section]) -> str:
    return "\n\n".join("\n".join([s.title, *_aligned(s.table), *(f"  {line}" for line in s.lines)]) for s in found)


def as_markdown(found: Sequence[Section], command: str, plots: Sequence[str]) -> str:
    parts = ["# Benchmark\n", f"    {command}\n"]
    for section in found:
        parts.append(f"## {section.title}\n")
        if section.table:
            head, *body = section.table
            rows = [head, ["---"] * len(head), *body]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
        if section.lines:
            parts.append("\n".join(f"- {line}" for line in section.lines) + "\n")
    parts += [f"![{PLOTS[name]}]({name})\n" for name in plots]
    return "\n".join(parts)


def _about(results: Results) -> list[tuple[str, str]]:
    loads = [r.load for r in results.rounds]
    load = f"{min(loads):.1f}..{max(loads):.1f}" if loads else "no round yet"
    return [*results.about.items(), ("load average", load)]


def _speed_table(cases: Sequence[CaseSummary]) -> list[list[str]]:
    table = [["case", "mode", "tok/s", "x ar", "x mlx_lm"]]
    for case, lane in _rows(cases):
        ratios = [_spread(lane.speedup.get(b), 2) for b in BASELINES]
        table.append([case.name, lane.lane, _spread(lane.speed, 1), *ratios])
    return table


def _speed_notes(cases: Sequence[CaseSummary]) -> list[str]:
    notes = [
        "medians (quartiles); the prompt is not counted: from when all of it but its last token is read",
        "a ratio is the median of ratios of neighbouring answers to one prompt; above 1 is faster",
    ]
    for baseline in BASELINES:
        if not any(baseline in lane.speedup for _, lane in _rows(cases)):
            notes.append(f"no speed-up over {baseline}: this run did not measure it (add it to --modes)")
    return notes


def _whole_table(cases: Sequence[CaseSummary]) -> list[list[str]]:
    table = [["case", "mode", "prompt", "answers", "same as ar", "first token", "memory", "x ar", "x mlx_lm"]]
    for case, lane in _rows(cases):
        table.append(
            [
                case.name,
                lane.lane,
                f"{case.prompt_tokens.median:.0f} tokens",
                str(lane.answers),
                f"{lane.same}/{lane.compared}" if lane.compared else "not compared",
                f"{1000 * lane.first_token.median:.0f} ms",
                byte_count(lane.memory),
                *(_spread(lane.speedup_with_prompt.get(b), 2) for b in BASELINES),
            ]
        )
    return table


def _draft_table(cases: Sequence[CaseSummary]) -> list[list[str]]:
    heads = ["tokens/cycle", "TPF", "accepted/drafted", "gain expected", "found", "cycles", "rows verified"]
    table = [["case", "mode", *heads, "rows drafted"]]
    for case, lane in _rows(cases):
        counts = lane.counts
        if counts is None or lane.lane == "ar":
            continue
        share = f" ({counts.accepted / counts.drafted:.0%})" if counts.drafted else ""
        table.append(
            [
                case.name,
                lane.lane,
                f"{counts.tokens_per_cycle:.2f}",
                f"{counts.tokens_per_forward:.2f}",
                f"{counts.accepted}/{counts.drafted}{share}",
                *([f"{gain:.2f}x" for gain in counts.gains] if counts.gains else ["-", "-"]),
                _most_frequent(counts.steps),
                _most_frequent(counts.target_rows),
                _most_frequent(counts.draft_rows),
            ]
        )
    return table


def _most_frequent(counts: dict[str, int]) -> str:
    """ "chain x20, ar x5": what occurred, and how often."""
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    rest = sum(count for _, count in ranked[_MOST_SHOWN:])
    shown = [f"{name} x{count}" for name, count in ranked[:_MOST_SHOWN]] + ([f"other x{rest}"] if rest else [])
    return ", ".join(shown) or "-"


def _promises(results: Results, cases: Sequence[CaseSummary]) -> list[str]:
    compared = [lane for _, lane in _rows(cases) if lane.lane not in ("ar", MLX_LM) and lane.compared]
    wrong = mismatches(results)
    lines = []
    if compared:
        answers = counted(sum(lane.compared for lane in compared), "answer")
        lines.append(f"{'FAIL' if wrong else 'pass'}  {answers} of other modes, token by token against ar")
    else:
        lines.append("not judged  same tokens as ar: this run did not measure ar beside another mode")
    lines += [f"FAIL  {place}" for place in wrong]
    lines += map(str, verdicts(cases))
    if not any(lane.startswith("block") for case in cases for lane in case.against):
        lines.append("not judged  auto against the best fixed block size: needs --block-sizes")
    return lines


def _rows(cases: Sequence[CaseSummary]) -> list[tuple[CaseSummary, LaneSummary]]:
    return [(case, lane) for case in cases for lane in case.lanes.values()]


def _spread(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    if spread.count == 1:
        return f"{spread.median:.{digits}f}"
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f}..{spread.high:.{digits}f})"


def _aligned(table: list[list[str]]) -> list[str]:
    """Columns as wide as their widest cell; what repeats the row above stays blank."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines, above = [], ""
    for row in table:
        shown = ["" if row[0] == above else row[0], *row[1:]]
        above = row[0]
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True)).rstrip())
    return lines

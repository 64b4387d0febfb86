"""SIMULATION of mode "auto" on published pass costs: no Mac, no clock. Writes a plot and two tables in Markdown.

    python -m benchmarks.policy_simulation [--out docs]

Texts are replayed (`policy_replay.py`) under the costs of `policy_curves.py`: what the demo model would have drafted on
its own answers (recorded by `record_traces.py`), and invented texts that accept as published for real models. Every
workload is one process: its texts share what a policy learns about a model, in order; invented ones are of one genre.
Compared are the loop that always drafts and verifies 32 rows (the published one), the same with 16, and the policy,
each over one-token steps. Every cell is run three times, each time with other scatter and nothing learned: one late or
early cycle turns what the policy does next.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from orthrus_mlx.decoding.auto_policy import AutoPolicy
from orthrus_mlx.decoding.policy import FixedPolicy
from orthrus_mlx.decoding.policy_memory import PolicyMemory
from orthrus_mlx.decoding.steps import Policy

from .policy_curves import CURVES, Curve
from .policy_replay import Machine, Trace, load_traces, replay
from .policy_workloads import WORKLOADS

TRACES = Path(__file__).parent / "results" / "demo_traces.npz"
LONG = "real models, 600 tokens"

REPEATS = 3

TREES = "ours"
"""Trees need our attention kernel: only on curves with this word in their name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    groups = {
        LONG: {w.name: w.texts(4, 600) for w in WORKLOADS},
        "real models, 40 tokens": {w.name: w.texts(16, 40) for w in WORKLOADS[:4]},
        "demo model": load_traces(TRACES),
    }
    rows = []
    for group, workloads in groups.items():
        print(f"\n{group}: speed over one-token steps, auto (fixed 16 / fixed 32)\n")
        print("| passes | " + " | ".join(workloads) + " |")
        print("|---" * (len(workloads) + 1) + "|")
        for curve in CURVES:
            figures = [compared(curve, texts) for texts in workloads.values()]
            rows += [(curve, f"{group}: {name}", *f) for name, f in zip(workloads, figures, strict=True)]
            cells = [f"**{auto:.2f}** ({f16:.2f} / {f32:.2f})" for auto, f16, f32 in figures]
            print(f"| {curve.name} | " + " | ".join(cells) + " |", flush=True)
    least = min(rows, key=lambda row: row[2])
    print(f"\nLeast of all: {least[2]:.3f} ({least[0].name}, {least[1]})")
    mean = [statistics.geometric_mean(row[column] for row in rows) for column in (2, 3, 4)]
    print("Geometric means: auto {:.2f}, fixed 16 {:.2f}, fixed 32 {:.2f}".format(*mean))
    plot(rows, args.out / "policy-simulation.png", [f"{LONG}: {w.name}" for w in WORKLOADS[:4]])


def compared(curve: Curve, texts: Sequence[Trace]) -> tuple[float, float, float]:
    """Speed-ups over one-token steps: auto, fixed 16 rows, fixed 32 rows."""
    on = curve.machine()

    def auto() -> Callable[[Trace], Policy]:
        costs, memory, trees = on.table(), PolicyMemory(), TREES in curve.name
        return lambda text: AutoPolicy(costs, memory, block_rows=32, prompt=text.prompt, padded=on.padded, trees=trees)

    def fixed(rows: int) -> Callable[[], Callable[[Trace], Policy]]:
        return lambda: lambda text: FixedPolicy(rows)

    return speedup(on, texts, auto), speedup(on, texts, fixed(16)), speedup(on, texts, fixed(32))


def speedup(on: Machine, texts: Sequence[Trace], process: Callable[[], Callable[[Trace], Policy]]) -> float:
    """Of a process's texts one after the other; `process` begins one."""
    runs = []
    for repeat in range(REPEATS):
        policy = process()
        runs += [replay(text, policy(text), on, seed=100 * repeat + i) for i, text in enumerate(texts)]
    return sum(run.plain_ms for run in runs) / sum(run.ms for run in runs)


def plot(rows: Sequence[tuple], file: Path, workloads: Sequence[str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(workloads), figsize=(14, 5.5), sharey=True, layout="constrained")
    names = [curve.name for curve in CURVES]
    for axis, workload in zip(axes, workloads, strict=True):
        values = {row[0].name: row[2:] for row in rows if row[1] == workload}
        for i, name in enumerate(names):
            auto, f16, f32 = values[name]
            axis.plot([f32, auto], [i, i], color="#cccccc", zorder=1)
            axis.scatter(f32, i, color="#d95f02", s=22, label="fixed 32 rows" if i == 0 else None)
            axis.scatter(f16, i, color="#7570b3", s=22, label="fixed 16 rows" if i == 0 else None)
            axis.scatter(auto, i, color="#1b9e77", s=36, label="auto" if i == 0 else None, zorder=3)
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
        axis.set_title(workload.removeprefix(f"{LONG}: "), fontsize=10)
        axis.set_xlabel("speed over one-token steps", fontsize=9)
        axis.grid(axis="x", linewidth=0.3)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncols=3)
    figure.suptitle("SIMULATION on published and predicted pass costs; nothing here ran on a Mac", fontsize=11)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    partial.replace(file)


if __name__ == "__main__":
    main()

"""Draws speed against context length from what `real_shapes.py` found.

python -m benchmarks.real_shapes_plot benchmarks/results/real_shapes        (writes real_shapes_context.png beside it)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .real_shapes import SWEPT, SWEPT_ROWS

COLUMNS = 3


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel per model: tokens per second of mlx-lm, of our steps and of replayed blocks, over the context length."""
    models = result["models"]
    rows = -(-len(models) // COLUMNS)
    figure = Figure(figsize=(4.2 * min(len(models), COLUMNS), 3.8 * rows), layout="constrained")
    panels = figure.subplots(rows, min(len(models), COLUMNS), squeeze=False).flat
    for axes, (name, model) in zip(panels, models.items(), strict=False):
        contexts = [int(c) for c in model["sweep"]]
        lines = {
            f"blocks of {SWEPT_ROWS} rows, replayed": [row["tokens per second"] for row in model["sweep"].values()],
            "our one-token steps": [1e3 / model["ar_step"][c] for c in model["sweep"]],
            "mlx-lm": [1e3 / model["mlx_lm"][c] for c in model["sweep"]],
        }
        for label, speeds in lines.items():
            axes.plot(contexts, speeds, marker="o", label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(contexts, [str(c) for c in contexts])
        axes.set_ylim(bottom=0)
        axes.set_title(name)
        axes.set_xlabel("tokens of context")
        axes.set_ylabel("tokens per second")
        axes.legend(fontsize="small", loc="lower left")
    figure.suptitle(
        f"{result['machine']['device']}, random weights, acceptance as stated for {SWEPT}", fontsize="small"
    )
    FigureCanvasAgg(figure).print_png(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="path of the results, without .json")
    path = parser.parse_args().result
    draw(json.loads(path.with_suffix(".json").read_text()), path.with_name(f"{path.name}_context.png"))


if __name__ == "__main__":
    main()

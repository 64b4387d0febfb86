"""The demo model, from nothing: `python -m orthrus_mlx.training.demo --out FOLDER`.

Light on purpose: the worker processes that write and tokenise the corpus import the main module again, and
must not import MLX, let alone open a GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import OrthrusError
from .plan import SMOKE, STAGES, Plan


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 3 stopped by --stop-after-minutes."""
    parser = argparse.ArgumentParser(description="Make the demo model from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--work", type=Path, help="folder for intermediate results; default OUT-work")
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="last stage to make")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: seconds, through every stage")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count(), help="tokenising processes")
    parser.add_argument("--stop-after-minutes", type=float, help="write a checkpoint and stop (exit code 3)")
    for name, default in vars(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), help=f"default {default}")
    args = vars(parser.parse_args(argv))
    plan = SMOKE if args["smoke"] else Plan()
    plan = replace(plan, **{k: args[k] for k in vars(plan) if args[k] is not None})
    work = args["work"] or args["out"].with_name(args["out"].name + "-work")
    from .pipeline import Demo

    try:
        done = Demo(plan, args["out"], work, args["workers"], args["stop_after_minutes"]).run(args["until"])
    except OrthrusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if done else 3


if __name__ == "__main__":
    sys.exit(main())

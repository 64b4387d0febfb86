"""`orthrus-mlx train`: distil a diffusion view for a dense Qwen3 checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .options import number

DESCRIPTION = (
    "Train the diffusion view of a dense Qwen3 checkpoint by distilling its own AR view; the base stays as it is. "
    "The demo model has its own command: python -m orthrus_mlx.training.demo --out FOLDER."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--model", required=True, metavar="PATH_OR_ID", help="folder or Hugging Face id of an unquantised Qwen3"
    )
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FILE",
        help='JSONL: {"messages": [..]} or {"text": ".."} a line',
    )
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="folder for the trained model")
    parser.add_argument(
        "--self-answer",
        action="store_true",
        help="replace the last answer of every chat by the model's own greedy one (recommended)",
    )

    def add_number(flag: str, kind: Callable[[str], Any], default: float, meaning: str) -> None:
        parser.add_argument(flag, type=kind, default=default, metavar="N", help=f"{meaning} (default: {default})")

    add_number("--block-size", int, 32, "rows of a block, 2..32")
    parser.add_argument(
        "--mask-token-id", type=int, metavar="ID", help="an unused row of the embedding (default: the first)"
    )
    add_number("--steps", int, 2000, "optimiser steps")
    add_number("--batch-size", int, 8, "rows per step")
    add_number("--anchors", int, 48, "blocks per row")
    add_number("--row-length", int, 1024, "tokens per row; longer documents are cut")
    add_number("--answer-batch", number(int, 1), 64, "prompts answered at once")
    add_number("--learning-rate", float, 2e-4, "peak of the cosine schedule")
    add_number("--seed", number(int, 0, 2**32 - 1), 0, "of the order of rows and the choice of blocks")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT/training")
    parser.add_argument(
        "--stop-after-minutes", type=float, metavar="MINUTES", help="write a checkpoint and stop (exit code 3)"
    )


def run(args: argparse.Namespace) -> int:
    """Train; 0 when finished, 3 when stopped by --stop-after-minutes."""
    from ..training.finetune import distil_checkpoint

    finished = distil_checkpoint(args)
    where = args.output / "training"
    if not finished:
        print(f"stopped; checkpoint in {where}; continue with the same command and --resume")
        return 3
    print(f"wrote {args.output}; curves and metrics in {where}")
    return 0

"""`orthrus-mlx train`: distil a diffusion view for a dense Qwen3 checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = (
    "Train the diffusion view of a dense Qwen3 checkpoint by distilling its own AR view; the base stays as it is. "
    "The demo model has its own command: python -m orthrus_mlx.training.demo --out FOLDER."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.description = DESCRIPTION
    parser.add_argument("--model", required=True, help="folder or Hugging Face id of an unquantised Qwen3")
    parser.add_argument("--data", required=True, type=Path, help='JSONL: {"messages": [..]} or {"text": ".."} a line')
    parser.add_argument("--output", required=True, type=Path, help="folder for the trained model")
    parser.add_argument(
        "--self-answer",
        action="store_true",
        help="replace the last answer of every chat by the model's own greedy one (recommended)",
    )
    parser.add_argument("--block-size", type=int, default=32, help="rows of a block, 2..32 (default 32)")
    parser.add_argument("--mask-token-id", type=int, help="an unused row of the embedding (default: the first)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=8, help="rows per step")
    parser.add_argument("--anchors", type=int, default=48, help="blocks per row")
    parser.add_argument("--row-length", type=int, default=1024, help="tokens per row; longer documents are cut")
    parser.add_argument("--answer-batch", type=int, default=64, help="prompts answered at once")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="peak of the cosine schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT/training")
    parser.add_argument("--stop-after-minutes", type=float, help="write a checkpoint and stop (exit code 3)")


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

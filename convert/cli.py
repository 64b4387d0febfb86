"""`orthrus-mlx convert` and `python -m orthrus_mlx.convert`: flags named as in mlx-lm where it has them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orthrus_mlx.units import byte_count

if TYPE_CHECKING:
    from .converter import Conversion
    from .quantization import Quantization


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the converter's flags on `parser`."""
    parser.add_argument(
        "--hf-path", "--model", required=True, metavar="PATH_OR_ID", help="folder or Hugging Face id to convert"
    )
    parser.add_argument("--mlx-path", default="mlx_model", metavar="PATH", help="folder to write (default: mlx_model)")
    parser.add_argument("--revision", help="branch, tag or commit of a Hugging Face id")
    parser.add_argument("-q", "--quantize", action="store_true", help="quantise (affine, 4 bits, groups of 64)")
    parser.add_argument("--q-bits", type=int, metavar="N", help="affine: 2, 3, 4, 5, 6 or 8")
    parser.add_argument("--q-group-size", type=int, metavar="N", help="affine: 32, 64 or 128")
    parser.add_argument("--q-mode", metavar="MODE", help="affine (default), mxfp4, nvfp4 or mxfp8")
    parser.add_argument("--dtype", metavar="TYPE", help="bfloat16, float16 or float32 (default: as they are)")
    parser.add_argument("--diff-q-bits", type=int, metavar="N", help="bits of the diffusion weights (default: as -q)")
    parser.add_argument("--diff-q-group-size", type=int, metavar="N", help="group size of the diffusion weights")
    parser.add_argument("--diff-q-mode", metavar="MODE", help="mode of the diffusion weights; each works without -q")
    parser.add_argument("--diff-no-quantize", action="store_true", help="leave the diffusion weights as they are")
    parser.add_argument(
        "--draft-vocabulary", type=int, metavar="N", help="let drafts be made of the N most frequent ids where it pays"
    )
    parser.add_argument(
        "--draft-text", nargs="+", default=[], metavar="FILE", help="text or .jsonl to count the ids in"
    )
    parser.add_argument(
        "--layout", default="sidecar", help="sidecar (default): diffusion weights in files of their own; or single"
    )
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="bytes per file (default: 5GB)")
    parser.add_argument("--force", action="store_true", help="replace the model folder that is there")


def run(args: argparse.Namespace) -> int:
    """Convert as `args` say, progress on stderr, a summary on stdout. Raises OrthrusError; returns the exit code."""
    from .converter import convert
    from .progress import show_progress

    with show_progress() as on_progress:
        result = convert(
            args.hf_path,
            args.mlx_path,
            quantize=args.quantize,
            q_group_size=args.q_group_size,
            q_bits=args.q_bits,
            q_mode=args.q_mode,
            dtype=args.dtype,
            revision=args.revision,
            diff_quantize=False if args.diff_no_quantize else None,
            diff_q_group_size=args.diff_q_group_size,
            diff_q_bits=args.diff_q_bits,
            diff_q_mode=args.diff_q_mode,
            draft_vocabulary=args.draft_vocabulary,
            draft_text=args.draft_text,
            layout=args.layout,
            force=args.force,
            max_shard_size=args.max_shard_size,
            on_progress=on_progress,
        )
    print(_summary(result))
    return 0


def _summary(result: Conversion) -> str:
    lines = [
        f"Wrote {result.path}: {byte_count(result.written_bytes)} from {byte_count(result.source_bytes)}"
        f" in {result.seconds:.1f} s, read back and verified",
        f"  backbone   {_form(result.quantization)}",
    ]
    if result.args.has_diffusion_view:
        lines.append(f"  diffusion  {_form(result.diff_quantization)}, block size {result.args.block_size}")
    else:
        lines.append("  diffusion  none: a plain Qwen3, which decodes one token at a time")
    if (vocabulary := result.draft_vocabulary) is not None:
        lines.append(f"  drafts     {len(vocabulary.ids)} ids, {vocabulary.coverage:.2%} of the text's tokens")
    lines += [f"  {name}  {byte_count(size)}" for name, size in result.files.items()]
    if result.dropped:
        lines.append(f"  left out   {', '.join(result.dropped)}: not needed")
    lines.append(f"Next: orthrus-mlx chat --model {result.path}")
    return "\n".join(lines)


def _form(quantization: Quantization | None) -> str:
    if quantization is None:
        return "not quantised"
    return f"{quantization.mode}, {quantization.bits} bits, groups of {quantization.group_size}"

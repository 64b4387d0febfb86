"""`orthrus-mlx bench`: speed by workload against two baselines, measured together."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BenchmarkError
from ..units import counted
from .options import add_model_arguments, number
from .terminal import printable

if TYPE_CHECKING:
    from ..bench.cases import Case
    from ..bench.lanes import Models
    from ..bench.prompts import Prompt
    from ..bench.report import Section
    from ..bench.results import Results
    from .start import LoadedModel

BLOCK_SIZES = (2, 4, 8, 16, 32)
CONTEXTS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LONG = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `bench` on `parser`."""
    add_model_arguments(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="keep results, report and plots; the same command again goes on"
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--prompts",
        metavar="SET",
        help="general, demo, or a JSONL file of your own (default: demo for the demo model, else general)",
    )
    what.add_argument("--workloads", nargs="+", metavar="NAME", help="of the prompt set (default: all)")
    what.add_argument("--formats", nargs="+", metavar="NAME", help="raw, chat, think (default: all that the model has)")
    what.add_argument("--modes", nargs="+", metavar="NAME", help="mlx_lm, ar, diffusion, auto (default: all)")
    what.add_argument(
        "--block-sizes",
        nargs="*",
        type=number(int, 2, 32),
        metavar="N",
        help="fixed block sizes as further modes, and auto judged against them (none named: 2 4 8 16 32)",
    )
    what.add_argument(
        "--context",
        nargs="*",
        type=number(int, 16),
        metavar="N",
        help="also behind prompts of so many tokens (none named: 512 to 32768)",
    )
    what.add_argument(
        "--long", nargs="?", type=number(int, 1), const=LONG, metavar="N", help="also answers of N tokens (4096)"
    )
    size = parser.add_argument_group("how much")
    size.add_argument(
        "--max-tokens", "-m", type=number(int, 1), default=256, metavar="N", help="most tokens of an answer (256)"
    )
    size.add_argument(
        "--num-prompts", type=number(int, 1), default=4, metavar="N", help="prompts per workload (4; the sets have 8)"
    )
    size.add_argument(
        "--num-trials", "-n", type=number(int, 1), default=3, metavar="N", help="answers per prompt and mode (3)"
    )
    size.add_argument(
        "--delay", type=number(float, 0), default=0.0, metavar="S", help="seconds of rest before each answer (0)"
    )
    size.add_argument(
        "--prefill-step-size", type=number(int, 1), default=2048, metavar="N", help="prompt tokens per pass (2048)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print the report on stdout. Raises OrthrusError, also where a mode's tokens differ from AR's."""
    from ..bench import runner
    from ..bench.report import as_text, sections
    from ..bench.results import open_results
    from .progress import AnswerBar

    bench = _prepare(args)
    results = open_results(args.output, bench.settings, bench.about)
    rounds = list(runner.plan(bench.cases, results))
    if results.rounds:
        told = f"{counted(len(results.rounds), 'round')} measured before, {len(rounds)} to go"
        print(f"{args.output}: {told}", file=sys.stderr)
    try:
        with AnswerBar(sum(len(bench.lanes(case)) for case, *_ in rounds)) as bar:
            runner.run(bench.models, bench.cases, bench.lanes, results, delay=args.delay, progress=bar.update)
    except KeyboardInterrupt:
        if args.output is not None:
            print(f"stopped; the same command goes on from {args.output}", file=sys.stderr)
        raise
    report = sections(results)
    print(printable(as_text(report)))
    if args.output is not None:
        _write(args.output, results, report)
    wrong = runner.mismatches(results)
    if wrong:
        differ = "answer differs" if len(wrong) == 1 else "answers differ"
        raise BenchmarkError(f"not lossless: {len(wrong)} {differ} from ar, first {wrong[0]}")
    return 0


def _write(folder: Path, results: Results, report: list[Section]) -> None:
    from ..atomic_file import write_text
    from ..bench.plots import draw_plots
    from ..bench.report import as_markdown

    plots = draw_plots(results, folder)
    write_text(folder / "report.md", as_markdown(report, shlex.join(["orthrus-mlx", *sys.argv[1:]]), plots))
    print(f"\nWrote {folder}: {', '.join(['results.json', 'report.md', *plots])}")


@dataclass(frozen=True)
class _Bench:
    """A benchmark ready to run."""

    models: Models
    cases: list[Case]
    modes: list[str]
    block_sizes: list[int]
    settings: dict[str, Any]
    about: dict[str, str]

    def lanes(self, case: Case) -> list[str]:
        """Block sizes compete where the kind of text is the question."""
        from ..bench.lanes import block_lane

        return self.modes + [block_lane(size) for size in self.block_sizes if case.kind == "workload"]


def _prepare(args: argparse.Namespace) -> _Bench:
    from ..bench.cases import chosen, formats_of
    from ..bench.fingerprint import code_digest, digest, model_digest
    from ..bench.lanes import MLX_LM, MODES, Models, load_reference
    from ..bench.prompts import read_prompts, workloads_of
    from ..exactness import exactness_of
    from ..kernels import requested_mode
    from ..loading import demo_folder
    from ..machine import describe_machine
    from .info import describe_weights
    from .progress import spinner
    from .start import model_folder, open_model

    folder = model_folder(args.model, args.revision)
    name = args.prompts or ("demo" if folder.resolve() == demo_folder().resolve() else "general")
    prompts, text = read_prompts(name)
    workloads = chosen("--workloads", args.workloads, workloads_of(prompts))
    loaded = open_model(args.model, args.revision)
    own = loaded.model.args
    modes = chosen("--modes", args.modes, MODES if own.has_diffusion_view else (MLX_LM, "ar"))
    if args.modes is None and loaded.ranks > 1:
        # It would hold the whole model in one process, beside a part of it.
        modes.remove(MLX_LM)
    sizes = _block_sizes(args.block_sizes, own.block_size, covered="diffusion" in modes)
    reference = None
    if MLX_LM in modes:
        with spinner("Loading the same weights with mlx-lm"):
            reference = load_reference(folder)
    formats = chosen("--formats", args.formats, formats_of(loaded.tokenizer))
    prompts = [p for p in prompts if p.workload in workloads]
    cases = _cases(args, loaded, prompts, formats)
    if not cases:
        raise BenchmarkError("no prompt of these workloads and formats fits the model's context")

    machine, exactness = describe_machine(), exactness_of(loaded.model)
    over = f", over {loaded.ranks} ranks" if loaded.ranks > 1 else ""
    settings = {
        "model": model_digest(folder) + over,
        "code": code_digest(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{label: machine[label] for label in ("device", "mlx", "mlx-lm")},
        "prompts": digest(text),
        "modes": modes,
        "block sizes": sizes,
        "max-tokens": args.max_tokens,
        "prefill-step-size": args.prefill_step_size,
        "kernels": requested_mode(None),
        "exactness": str(exactness),
    }
    about = machine | {
        "model": f"{loaded.name}, {describe_weights(loaded.model)}{over}",
        "kernels": "; ".join(loaded.model.kernels.notes),
        "exactness": f"{exactness} ({exactness.evidence})",
        "prompts": name,
        "answers": f"greedy, at most {args.max_tokens} tokens",
    }
    models = Models(loaded.model, loaded.tokenizer, reference, args.prefill_step_size)
    return _Bench(models, cases, modes, sizes, settings, about)


def _block_sizes(wanted: list[int] | None, own: int | None, *, covered: bool) -> list[int]:
    """The sizes to measure; the model's own is mode `diffusion` already, where that is `covered`."""
    if wanted is None:
        return []
    if own is None:
        raise BenchmarkError("--block-sizes: this model has no diffusion view")
    return sorted({size for size in wanted or BLOCK_SIZES if not (covered and size == own)})


def _cases(args: argparse.Namespace, loaded: LoadedModel, prompts: list[Prompt], formats: list[str]) -> list[Case]:
    from ..bench.cases import context_cases, long_case, workload_cases

    room = loaded.model.args.context_length
    cases = workload_cases(
        loaded.tokenizer,
        prompts,
        formats,
        count=args.num_prompts,
        trials=args.num_trials,
        max_tokens=args.max_tokens,
        context_length=room,
    )
    # The sweeps ask for a length, not for a format: the chat's where there is one.
    format = "chat" if "chat" in formats else formats[0]
    if args.context is not None:
        cases += context_cases(
            loaded.tokenizer,
            prompts,
            format,
            args.context or CONTEXTS,
            max_tokens=args.max_tokens,
            context_length=room,
        )
    if args.long is not None:
        cases += long_case(loaded.tokenizer, prompts, format, length=args.long, context_length=room)
    return cases

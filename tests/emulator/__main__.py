"""`python -m tests.emulator run|lint kernel.metal ...`: one kernel from the shell."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

from tests.emulator.errors import EmulatorError
from tests.emulator.execution import run_text
from tests.emulator.findings import Buffer
from tests.emulator.lint import lint
from tests.emulator.metal import run_source
from tests.emulator.preprocess import KERNEL, translate, uncommented
from tests.emulator.tracing import generated_text, origins

EXAMPLE = """examples:
  python -m tests.emulator run scale.metal --input x=256:float16:random --output y=256:float16 \\
      --template T=float16 --grid 256 --threadgroup 64 --checked
  python -m tests.emulator lint scale.metal --input x=256:float16 --output y=256:float16 --template T=float16

kernel.metal is either the body of a kernel, as mx.fast.metal_kernel takes it, or a whole kernel function with its
[[buffer(n)]] parameters (then --entry names it with its template arguments, if it has some).
An input is NAME=FILE.npy or NAME=SHAPE:DTYPE[:FILL], SHAPE like 4x64 or empty for a scalar, FILL one of zeros,
ones, arange, random or a number. An output is NAME=SHAPE:DTYPE."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _run(options) if options.command == "run" else _lint(options)
    except EmulatorError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("file", type=Path, help="kernel.metal")
    common.add_argument("--header", type=Path, action="append", default=[], help="text before the kernel; repeatable")
    common.add_argument("--entry", help="kernel to run in a whole text, e.g. 'scale<float, 4>'")
    common.add_argument("--input", action="append", default=[], metavar="NAME=...", help="in order; repeatable")
    common.add_argument("--output", action="append", default=[], metavar="NAME=...", help="in order; repeatable")
    common.add_argument("--template", action="append", default=[], metavar="NAME=VALUE", help="dtype, int or bool")

    parser = argparse.ArgumentParser(
        prog="python -m tests.emulator", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", parents=[common], help="run a kernel and print its outputs")
    run.add_argument("--grid", required=True, type=_triple, help="threads, e.g. 256 or 64,4,1")
    run.add_argument("--threadgroup", required=True, type=_triple, help="threads, e.g. 64 or 32,4,1")
    run.add_argument("--init-value", type=float, help="fill outputs first")
    run.add_argument("--checked", action="store_true", help="report faults")
    run.add_argument("--traffic", action="store_true", help="count bytes per buffer")
    run.add_argument("--perturbed", action="store_true", help="round as another device might")
    run.add_argument("--seed", type=int, default=0, help="other than 0: shuffle the schedule; also seeds random inputs")
    run.add_argument("--save", type=Path, help="folder for the outputs as .npy")
    commands.add_parser("lint", parents=[common], help="check address spaces and house rules")
    return parser


def _triple(text: str) -> tuple[int, int, int]:
    sizes = [int(part) for part in text.split(",")]
    if len(sizes) > 3:
        raise argparse.ArgumentTypeError(f"{text!r}: one to three sizes are needed")
    x, y, z = [*sizes, 1, 1][:3]
    return x, y, z


def _run(options: argparse.Namespace) -> int:
    mx.random.seed(options.seed)
    inputs = dict(_input(text) for text in options.input)
    shapes = dict(_output(text) for text in options.output)
    checks = {name: getattr(options, name) for name in ("checked", "traffic", "perturbed", "seed")}
    if _is_whole(options):
        results, report = _run_whole(options, inputs, shapes, checks)
    else:
        header, source = _texts(options)
        results, launch = run_source(
            source,
            inputs=inputs,
            outputs=shapes,
            grid=options.grid,
            threadgroup=options.threadgroup,
            name=_kernel_name(options),
            header=header,
            template=[_template(text) for text in options.template],
            init_value=options.init_value,
            folders=(options.file.resolve().parent,),
            **checks,
        )
        report = launch.report
    for name, array in results.items():
        values = np.array(array.astype(mx.float32))
        print(f"{name} {list(array.shape)} {_dtype_name(array.dtype)}: {np.array2string(values, threshold=16)}")
        if np.isnan(values).any():
            print(f"{name}: {int(np.isnan(values).sum())} of {values.size} are NaN")
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            np.save(options.save / f"{name}.npy", values if array.dtype == mx.bfloat16 else np.array(array))
    print(f"threadgroup memory: {report.threadgroup_bytes} bytes")
    for name, traffic in report.traffic.items():
        print(
            f"{name}: loaded {traffic.loaded}, distinct {traffic.unique}, "
            f"distinct per threadgroup {traffic.unique_per_threadgroup}, stored {traffic.stored} bytes"
        )
    return 0


def _lint(options: argparse.Namespace) -> int:
    inputs = dict(_input(text) for text in options.input)
    shapes = dict(_output(text) for text in options.output)
    header, source = _texts(options)
    text = header + source
    if not _is_whole(options):
        kernel = mx.fast.metal_kernel(
            name=_kernel_name(options),
            input_names=list(inputs),
            output_names=list(shapes),
            source=source,
            header=header,
        )
        call = {
            "inputs": list(inputs.values()),
            "output_shapes": [shape for shape, _ in shapes.values()],
            "output_dtypes": [dtype for _, dtype in shapes.values()],
            "template": [_template(text) for text in options.template],
            "grid": (1, 1, 1),
            "threadgroup": (1, 1, 1),
        }
        text = generated_text(kernel, call)
    folder = options.file.resolve().parent
    findings = lint(text, origins=origins(text, header, source, _kernel_name(options), (folder,)))
    for finding in findings:
        print(finding)
    print(f"{len(findings)} finding(s)")
    return 1 if findings else 0


def _texts(options: argparse.Namespace) -> tuple[str, str]:
    try:
        return "".join(path.read_text() for path in options.header), options.file.read_text()
    except OSError as error:
        raise EmulatorError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_whole(options: argparse.Namespace) -> bool:
    return bool(KERNEL.search(uncommented(_texts(options)[1])))


def _kernel_name(options: argparse.Namespace) -> str:
    return re.sub(r"\W", "_", options.file.stem)


def _run_whole(options: argparse.Namespace, inputs: dict, shapes: dict, checks: dict):
    header, source = _texts(options)
    text = header + source
    parameters = [p for p in translate(text, entry=options.entry).parameters if p.buffer is not None]
    buffers = []
    for parameter in sorted(parameters, key=lambda p: p.buffer or 0):
        if parameter.name in inputs:
            array = inputs[parameter.name]
            values = np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
            buffers.append(Buffer(parameter.name, array.nbytes, array.itemsize, values))
        elif parameter.name in shapes:
            shape, dtype = shapes[parameter.name]
            count = int(np.prod(shape))
            buffers.append(Buffer(parameter.name, count * dtype.size, dtype.size, writable=True))
        else:
            raise EmulatorError(f"parameter {parameter.name!r} is bound to nothing: add --input or --output for it")
    report = run_text(
        text,
        buffers,
        grid=options.grid,
        threadgroup=options.threadgroup,
        entry=options.entry,
        origins=origins(text, header, source, _kernel_name(options), (options.file.resolve().parent,)),
        **checks,
    )
    results = {
        b.name: mx.array(b.result).view(shapes[b.name][1]).reshape(shapes[b.name][0])
        for b in buffers
        if b.result is not None
    }
    return results, report


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise EmulatorError(f"{text!r}: NAME=... is needed")
    return name, value


def _input(text: str) -> tuple[str, mx.array]:
    name, value = _named(text)
    if value.endswith(".npy"):
        try:
            return name, mx.array(np.load(value))
        except OSError as error:
            raise EmulatorError(f"{value}: cannot be read ({error})") from error
    shape, dtype, fill = _described(text, value)
    count = int(np.prod(shape))
    if fill == "random" and mx.issubdtype(dtype, mx.floating):
        array = mx.random.normal((count,))
    elif fill == "random":
        array = mx.random.randint(0, 100, (count,))
    elif fill == "arange":
        array = mx.arange(count)
    else:
        try:
            array = mx.full((count,), float({"zeros": "0", "ones": "1"}.get(fill, fill)))
        except ValueError as error:
            raise EmulatorError(f"{text!r}: {fill!r} is none of zeros, ones, arange, random or a number") from error
    return name, array.astype(dtype).reshape(shape)


def _output(text: str) -> tuple[str, tuple[tuple[int, ...], mx.Dtype]]:
    name, value = _named(text)
    shape, dtype, _ = _described(text, value)
    return name, (shape, dtype)


def _described(text: str, value: str) -> tuple[tuple[int, ...], mx.Dtype, str]:
    parts = value.split(":")
    dtype = getattr(mx, parts[1], None) if len(parts) in (2, 3) else None
    if not isinstance(dtype, mx.Dtype) or not re.fullmatch(r"(\d+(x\d+)*)?", parts[0]):
        raise EmulatorError(f"{text!r}: NAME=FILE.npy or NAME=SHAPE:DTYPE[:FILL] is needed, e.g. x=4x64:float16:random")
    shape = tuple(int(n) for n in parts[0].split("x")) if parts[0] else ()
    return shape, dtype, parts[2] if len(parts) == 3 else "zeros"


def _template(text: str) -> tuple[str, object]:
    name, value = _named(text)
    dtype = getattr(mx, value, None)
    if isinstance(dtype, mx.Dtype):
        return name, dtype
    if value in ("true", "false"):
        return name, value == "true"
    if not re.fullmatch(r"-?\d+", value):
        raise EmulatorError(f"--template {text!r}: a dtype, true, false or an integer is needed")
    return name, int(value)


def _dtype_name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")


if __name__ == "__main__":
    sys.exit(main())

"""`with emulated_metal(): ...` runs every mx.fast.metal_kernel of the code inside in the emulator."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.emulator.errors import EmulatorError
from tests.emulator.execution import DEFAULT_TIMEOUT, Report, run_text
from tests.emulator.findings import Buffer
from tests.emulator.preprocess import Origin, translate
from tests.emulator.tracing import generated_text, origins

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Launch:
    """One kernel call that ran: `text` is the generated Metal text, `seconds` the whole call."""

    name: str
    text: str
    origins: tuple[Origin, ...]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    seconds: float
    report: Report


@dataclass
class Emulation:
    """How kernels run inside a `with emulated_metal(...)`, and the launches that ran so far."""

    checked: bool = False
    traffic: bool = False
    perturbed: bool = False
    seed: int = 0
    timeout: float = DEFAULT_TIMEOUT
    change: Callable[[str], str] | None = None
    partly: frozenset[str] = frozenset()
    folders: tuple[Path, ...] = (REPOSITORY / "metal",)
    launches: list[Launch] = field(default_factory=list)


_active: list[Emulation] = []


def on_metal() -> bool:
    """True where kernels run on Metal itself."""
    return not _active and mx.metal.is_available()


@contextmanager
def emulated_metal(
    *,
    checked: bool = False,
    traffic: bool = False,
    perturbed: bool = False,
    seed: int = 0,
    timeout: float = DEFAULT_TIMEOUT,
    change: Callable[[str], str] | None = None,
    partly: Collection[str] = (),
    folders: tuple[Path, ...] = (REPOSITORY / "metal",),
) -> Iterator[Emulation]:
    """Patches mx.fast.metal_kernel and mx.metal.is_available until the block ends.

    Kernel objects must be built inside the block (build them lazily, on first use); they may be kept, and
    in a later block they follow that block's settings. checked: find faults (KernelFault), 5 to 10 times
    slower. traffic: count bytes (implies checked). perturbed: round as another device might. seed: shuffle
    the schedule. change: applied to each generated text before it is compiled (mutation). partly: names of
    outputs that a kernel may leave unwritten in places (they hold 0xFF there). folders: where the kernels'
    files are, so that messages can name them.

    Where MLX has Metal the block changes nothing: kernels run on the GPU, no launch is listed, and what only
    the emulator can do (traffic, change, partly) is refused.
    """
    places = tuple(map(Path, folders))
    emulation = Emulation(checked, traffic, perturbed, seed, timeout, change, frozenset(partly), places)
    if on_metal():
        if traffic or change or partly:
            raise EmulatorError("traffic, change and partly need the emulator, and this machine runs kernels on Metal")
        yield emulation
        return
    saved = mx.fast.metal_kernel, mx.metal.is_available
    if not _active:
        mx.fast.metal_kernel = _kernel_factory(saved[0])
        mx.metal.is_available = lambda: True
    _active.append(emulation)
    try:
        yield emulation
    finally:
        _active.pop()
        if not _active:
            mx.fast.metal_kernel, mx.metal.is_available = saved


def run_source(
    source: str,
    *,
    inputs: Mapping[str, mx.array],
    outputs: Mapping[str, tuple[tuple[int, ...], mx.Dtype]],
    grid: tuple[int, int, int],
    threadgroup: tuple[int, int, int],
    name: str = "kernel",
    header: str = "",
    template: Sequence[tuple[str, object]] = (),
    init_value: float | None = None,
    **settings,
) -> tuple[dict[str, mx.array], Launch]:
    """One call of the kernel with body `source` inside emulated_metal(**settings): its outputs and its launch.

    outputs: name -> (shape, dtype).
    """
    with emulated_metal(**settings) as emulation:
        kernel: Any = mx.fast.metal_kernel(
            name=name, input_names=list(inputs), output_names=list(outputs), source=source, header=header
        )
        results = kernel(
            inputs=list(inputs.values()),
            output_shapes=[shape for shape, _ in outputs.values()],
            output_dtypes=[dtype for _, dtype in outputs.values()],
            grid=grid,
            threadgroup=threadgroup,
            template=list(template),
            init_value=init_value,
        )
    return dict(zip(outputs, results, strict=True)), emulation.launches[-1]


def _kernel_factory(original):
    def metal_kernel(
        name: str,
        input_names,
        output_names,
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        atomic_outputs: bool = False,
        compile_options=None,
    ) -> MetalKernel:
        real = original(
            name=name,
            input_names=input_names,
            output_names=output_names,
            source=source,
            header=header,
            ensure_row_contiguous=ensure_row_contiguous,
            atomic_outputs=atomic_outputs,
            compile_options=compile_options,
        )
        return MetalKernel(real, name, list(input_names), list(output_names), source, header, ensure_row_contiguous)

    return metal_kernel


@dataclass(frozen=True)
class Traced:
    """Generated text of one kernel call signature; `arguments` names what each buffer index holds."""

    text: str
    origins: tuple[Origin, ...]
    arguments: tuple[str, ...]


@dataclass(eq=False)
class MetalKernel:
    """What mx.fast.metal_kernel returns inside emulated_metal(); called the same way."""

    real: Any
    name: str
    input_names: list[str]
    output_names: list[str]
    source: str
    header: str
    ensure_row_contiguous: bool
    traced: dict[tuple, Traced] = field(default_factory=dict)

    def __call__(
        self,
        *,
        inputs,
        output_shapes,
        output_dtypes,
        grid,
        threadgroup,
        template=None,
        init_value=None,
        verbose: bool = False,
        stream=None,
    ) -> list[mx.array]:
        call = {
            "inputs": inputs,
            "output_shapes": output_shapes,
            "output_dtypes": output_dtypes,
            "grid": tuple(grid),
            "threadgroup": tuple(threadgroup),
            "template": template,
            "init_value": init_value,
            "verbose": verbose,
        }
        if not _active:
            return self.real(**{**call, "stream": stream})
        began = time.perf_counter()
        emulation = _active[-1]
        arrays = [value if isinstance(value, mx.array) else mx.array(value) for value in inputs]
        _evaluate(self.name, arrays)
        call["inputs"] = arrays
        traced = self._traced(call, emulation)
        if verbose:
            print(traced.text)
        values = {name: _values(array) for name, array in zip(self.input_names, arrays, strict=True)}
        for name, array in zip(self.input_names, arrays, strict=True):
            if self.ensure_row_contiguous:
                values[f"{name}_strides"] = _row_strides(array.shape)
            else:
                values[f"{name}_strides"] = np.array(values[name].strides, np.int64) // array.itemsize
                values[name] = _storage(values[name])
            values[f"{name}_shape"] = np.array(array.shape, np.int32)
            values[f"{name}_ndim"] = np.array(array.ndim, np.int32)
        outputs = {
            name: _output(name, shape, dtype, init_value, name in emulation.partly)
            for name, shape, dtype in zip(self.output_names, output_shapes, output_dtypes, strict=True)
        }
        buffers = [outputs.get(name) or _input(name, values[name]) for name in traced.arguments]
        text = emulation.change(traced.text) if emulation.change else traced.text
        report = run_text(
            text,
            buffers,
            grid=call["grid"],
            threadgroup=call["threadgroup"],
            origins=traced.origins,
            checked=emulation.checked,
            traffic=emulation.traffic,
            perturbed=emulation.perturbed,
            seed=emulation.seed,
            timeout=emulation.timeout,
        )
        results = [
            _array(outputs[name], shape, dtype)
            for name, shape, dtype in zip(self.output_names, output_shapes, output_dtypes, strict=True)
        ]
        seconds = time.perf_counter() - began
        emulation.launches.append(
            Launch(self.name, text, traced.origins, call["grid"], call["threadgroup"], seconds, report)
        )
        return results

    def _traced(self, call: dict, emulation: Emulation) -> Traced:
        # all that the generated text depends on: MLX writes `constant` for inputs of fewer than 8 elements
        # and a reference for those of no dimension
        key = (
            tuple((array.dtype, array.size < 8, array.ndim == 0) for array in call["inputs"]),
            tuple(call["output_dtypes"]),
            tuple((name, value) for name, value in call["template"] or ()),
            emulation.folders,
        )
        if key not in self.traced:
            text = generated_text(self.real, call)
            found = origins(text, self.header, self.source, self.name, emulation.folders)
            parameters = [p for p in translate(text).parameters if p.buffer is not None]
            names = tuple(p.name for p in sorted(parameters, key=lambda p: p.buffer or 0))
            self.traced[key] = Traced(text, found, names)
        return self.traced[key]


def _evaluate(name: str, arrays: list[mx.array]) -> None:
    try:
        mx.eval(arrays)
    except (RuntimeError, ValueError) as error:
        raise EmulatorError(
            f"kernel {name!r} was called while MLX traces (mx.compile, mx.grad, vmap); the emulator needs values: "
            f"set MLX_DISABLE_COMPILE=1 or call it outside ({error})"
        ) from error


def _values(array: mx.array) -> np.ndarray:
    """The array's memory as NumPy sees it, not copied; bfloat16 as its bits."""
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.array(array, copy=False)


def _row_strides(shape: tuple[int, ...]) -> np.ndarray:
    strides = np.ones(len(shape), np.int64)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return strides


def _storage(values: np.ndarray) -> np.ndarray:
    """The flat memory that a strided view spans, from its first element on."""
    extent = 1 + sum((n - 1) * s for n, s in zip(values.shape, values.strides, strict=True)) // values.itemsize
    return np.lib.stride_tricks.as_strided(values, (extent if values.size else 0,), (values.itemsize,))


def _input(name: str, values: np.ndarray) -> Buffer:
    return Buffer(name, values.nbytes, values.itemsize, values)


def _output(name: str, shape, dtype: mx.Dtype, init_value: float | None, partly: bool) -> Buffer:
    count = int(np.prod(shape))
    values = None if init_value is None else _values(mx.full((count,), init_value, dtype))
    return Buffer(name, count * dtype.size, dtype.size, values, writable=True, partly=partly)


def _array(output: Buffer, shape, dtype: mx.Dtype) -> mx.array:
    assert output.result is not None
    return mx.array(output.result).view(dtype).reshape(shape) if output.bytes else mx.zeros(shape, dtype)

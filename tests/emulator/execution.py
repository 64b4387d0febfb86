"""Runs a compiled kernel over buffers in the worker process."""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import select
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tests.emulator.compiler import compile_kernel
from tests.emulator.errors import EmulatorError, KernelFault
from tests.emulator.findings import Buffer, remarked, reported
from tests.emulator.preprocess import Origin, Program, translate

PAGE = 4096
ALIGNMENT = 64
WORKER = Path(__file__).with_name("worker.py")
DEFAULT_TIMEOUT = 300.0  # seconds for one launch


@dataclass(frozen=True)
class Traffic:
    """Bytes of one buffer that a launch moved.

    loaded, stored: every access of every thread. unique: distinct bytes loaded. unique_per_threadgroup:
    distinct bytes that each threadgroup loaded, summed: what must cross from device memory at least, if
    nothing but a threadgroup's own reuse is cached.
    """

    loaded: int
    stored: int
    unique: int
    unique_per_threadgroup: int


@dataclass(frozen=True)
class Report:
    """What a launch tells besides its outputs. `traffic` is by buffer name, empty unless asked for."""

    threadgroup_bytes: int
    traffic: dict[str, Traffic]


class Worker:
    """The child process and the memory it shares with this one."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("orthrus-emulator")
        self.bytes = 0
        self.memory = np.empty(0, np.uint8)
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(WORKER), str(self.descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.descriptor],
            text=False,
        )

    def reserve(self, count: int) -> None:
        if count <= self.bytes:
            return
        self.bytes = max(count, 2 * self.bytes, 1 << 20)
        os.ftruncate(self.descriptor, self.bytes)
        self.memory = np.frombuffer(mmap.mmap(self.descriptor, self.bytes), np.uint8)

    def ask(self, request: dict, timeout: float) -> dict | None:
        """The worker's answer; None when it died or did not answer in time."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            raise TimeoutError
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        os.close(self.descriptor)


_worker: Worker | None = None
_launching = threading.Lock()


def _running_worker() -> Worker:
    global _worker
    if _worker is None:
        if sys.platform != "linux":
            raise EmulatorError("the emulator runs on Linux only; on a Mac kernels run on Metal")
        _worker = Worker()
    return _worker


@atexit.register
def _stop_worker() -> None:
    global _worker
    if _worker is not None:
        _worker.close()
        _worker = None


@cache
def _prepared(
    text: str, entry: str | None, origins: tuple[Origin, ...], checked: bool, perturbed: bool
) -> tuple[Program, Path]:
    program = translate(text, entry=entry, origins=origins)
    library, remarks = compile_kernel(program.text, checked=False, perturbed=perturbed)
    if checked:
        if remarks:
            raise KernelFault(program.kernel, remarked(remarks))
        library, _ = compile_kernel(program.text, checked=True, perturbed=perturbed)
    return program, library


def run_text(
    text: str,
    buffers: list[Buffer],
    *,
    grid: tuple[int, int, int],
    threadgroup: tuple[int, int, int],
    entry: str | None = None,
    origins: tuple[Origin, ...] = (),
    checked: bool = False,
    traffic: bool = False,
    perturbed: bool = False,
    seed: int = 0,
    timeout: float = DEFAULT_TIMEOUT,
) -> Report:
    """Runs the kernel in `text` over `buffers`, in buffer-index order, and fills the outputs' `result`.

    `grid` counts threads, as in Metal's dispatchThreads. `seed` other than 0 shuffles threadgroups,
    simdgroups and lanes; `perturbed` rounds as another device might. Raises KernelFault for what the kernel did wrong,
    CompileError for its text.
    """
    _check_sizes(grid, threadgroup, buffers)
    checked = checked or traffic
    program, library = _prepared(text, entry, origins, checked, perturbed)
    with _launching:
        return _launch(program, library, buffers, grid, threadgroup, traffic, seed, timeout)


def _launch(
    program: Program, library: Path, buffers: list[Buffer], grid, threadgroup, traffic, seed, timeout
) -> Report:
    worker = _running_worker()
    places, end = [], PAGE
    for buffer in buffers:
        end += max(PAGE, -(-buffer.bytes // PAGE) * PAGE)
        places.append(end - max(ALIGNMENT, -(-buffer.bytes // ALIGNMENT) * ALIGNMENT))
        end += PAGE
    worker.reserve(end)
    for buffer, place in zip(buffers, places, strict=True):
        memory = worker.memory[place : place + buffer.bytes]
        if buffer.values is None:
            memory[:] = 0xFF
        elif buffer.bytes:
            memory.view(buffer.values.dtype).reshape(buffer.values.shape)[...] = buffer.values
    request = {
        "library": str(library),
        "bytes": worker.bytes,
        "regions": [
            [place, buffer.bytes, int(buffer.writable), int(buffer.values is not None), int(buffer.partly)]
            for buffer, place in zip(buffers, places, strict=True)
        ],
        "grid": grid,
        "threads": threadgroup,
        "seed": seed,
        "traffic": traffic,
    }
    try:
        answer = worker.ask(request, timeout)
    except TimeoutError:
        _stop_worker()
        raise EmulatorError(
            f"kernel {program.kernel!r} did not end within {timeout:g} s: it loops for ever, or needs a larger timeout"
        ) from None
    except BaseException:
        _stop_worker()  # its answer would be taken for the next launch's
        raise
    if answer is None:
        code = worker.process.wait()
        _stop_worker()
        raise EmulatorError(f"kernel {program.kernel!r} ended the emulator's process (status {code})")
    if answer["status"] == 2:
        _stop_worker()
    if answer["findings"]:
        raise KernelFault(program.kernel, reported(answer["findings"], buffers, library))
    for buffer, place in zip(buffers, places, strict=True):
        if buffer.writable:
            buffer.result = worker.memory[place : place + buffer.bytes].copy()
    moved = answer.get("traffic", [])
    return Report(
        answer["threadgroup_bytes"],
        {buffer.name: Traffic(*counts) for buffer, counts in zip(buffers, moved, strict=False)},
    )


def _check_sizes(grid: tuple[int, int, int], threadgroup: tuple[int, int, int], buffers: list[Buffer]) -> None:
    for name, size in (("grid", grid), ("threadgroup", threadgroup)):
        if len(size) != 3 or min(size) < 1:
            raise EmulatorError(f"{name}={tuple(size)}: three sizes of at least 1 are needed")
    threads = int(np.prod([min(t, g) for t, g in zip(threadgroup, grid, strict=True)]))
    if threads > 1024:
        raise EmulatorError(f"threadgroup={tuple(threadgroup)} has {threads} threads: Metal allows at most 1024")
    if len(buffers) > 31:
        raise EmulatorError(f"{len(buffers)} buffers: Metal allows at most 31 (each _shape, _strides, _ndim is one)")

"""Finds a C++ compiler, compiles translated kernels and keeps them on disk."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.emulator.errors import CompileError, EmulatorError

CPP = Path(__file__).parent / "cpp"
COMPILER_VARIABLE = "ORTHRUS_EMULATOR_CXX"
CACHE_VARIABLE = "ORTHRUS_EMULATOR_CACHE"


@dataclass(frozen=True)
class Compiler:
    """Commands: `kernel` compiles kernels, `runtime` files that include C headers, `link` makes the library."""

    kernel: tuple[str, ...]
    runtime: tuple[str, ...]
    link: tuple[str, ...]
    version: str
    clang: bool


@cache
def find_compiler() -> Compiler:
    """The first of: $ORTHRUS_EMULATOR_CXX, clang++ >= 16, the ziglang wheel's clang, g++ >= 12."""
    if named := os.environ.get(COMPILER_VARIABLE):
        command = tuple(named.split())
        version = _version(command)
        if not version:
            raise EmulatorError(f"{COMPILER_VARIABLE}={named!r} does not answer --version: name a C++ compiler")
        return _compiler(command, version)
    for command in (("clang++",), *((f"clang++-{n}",) for n in range(25, 15, -1))):
        if shutil.which(command[0]) and _major(version := _version(command)) >= 16:
            return _compiler(command, version)
    if find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "c++")
        return _compiler(command, _version(command))
    for command in (("g++",), *((f"g++-{n}",) for n in range(16, 11, -1))):
        if shutil.which(command[0]) and _major(version := _version(command)) >= 12:
            return _compiler(command, version)
    raise EmulatorError(
        "no C++ compiler for the emulator: install g++ >= 12 or clang++ >= 16, pip install ziglang, "
        f"or set {COMPILER_VARIABLE}"
    )


def _version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.split("\n")[0].strip()


def _major(version: str) -> int:
    match = re.search(r"(\d+)\.\d+", version)
    return int(match.group(1)) if match else 0


def _compiler(command: tuple[str, ...], version: str) -> Compiler:
    if "ziglang" in command:
        # zig c++ drops some -Xclang flags, zig clang knows no C headers; and zig's own link step first
        # builds a C library, which takes a minute
        zig = command[: command.index("ziglang") + 1]
        return Compiler((*zig, "clang", "-xc++"), (*zig, "c++"), (*zig, "ld.lld"), version, True)
    return Compiler(command, command, command, version, "clang" in version)


COMMON_FLAGS = (
    *("-O2", "-g1", "-w", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno"),
    *("-fno-trapping-math", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-fno-stack-protector"),
)
SANITIZERS = (
    "-fsanitize=thread",
    "-fsanitize=alignment,bounds,shift-exponent,integer-divide-by-zero,signed-integer-overflow,float-cast-overflow",
    "-ftrivial-auto-var-init=pattern",
)


def _runtime_flags(compiler: Compiler, checked: bool) -> list[str]:
    flags = [*COMMON_FLAGS, "-std=gnu++17"]
    if "ziglang" in compiler.runtime:
        flags.append("-fno-sanitize=all")
    return [*flags, "-DEMU_CHECKED"] if checked else flags


def _kernel_flags(compiler: Compiler, checked: bool) -> list[str]:
    flags = [*COMMON_FLAGS, "-std=gnu++14"]
    if platform.machine() == "x86_64":
        flags.append("-march=x86-64-v3")
    if compiler.clang:
        flags += ["-Xclang", "-ffloat16-excess-precision=none", "-Wno-reserved-user-defined-literal"]
    else:
        flags.append("-fexcess-precision=16")
    if checked:
        flags += ["-DEMU_CHECKED", *SANITIZERS]
        if compiler.clang:
            flags += ["-mllvm", "-tsan-instrument-read-before-write=1"]
    return flags


def cache_folder() -> Path:
    """Where compiled kernels live: $ORTHRUS_EMULATOR_CACHE or ~/.cache/orthrus-mlx/emulator."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "orthrus-mlx" / "emulator"


@cache
def _headers() -> bytes:
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(CPP.iterdir()))


def _key(*parts: object) -> str:
    digest = hashlib.sha256(_headers())
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()[:32]


def compile_kernel(unit: str, *, checked: bool) -> Path:
    """The shared library of a translated kernel, from the cache or made now (0.3 to 1 s)."""
    compiler = find_compiler()
    flags = _kernel_flags(compiler, checked)
    library = cache_folder() / f"{_key(unit, flags, compiler)}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(prefix="orthrus-emulator-") as scratch:
            source, built = Path(scratch, "kernel.cpp"), Path(scratch, "kernel.o")
            source.write_text(unit)
            _call([*compiler.kernel, *flags, f"-I{CPP}", "-c", str(source), "-o", str(built)])
            _link(compiler, [built, *_runtime(checked)], library)
    return library


def _runtime(checked: bool) -> list[Path]:
    compiler = find_compiler()
    flags = _runtime_flags(compiler, checked)
    objects = []
    for name in ["runtime.cpp", *(["checks.cpp"] if checked else [])]:
        path = cache_folder() / f"{_key(name, flags, compiler)}.o"
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix="orthrus-emulator-") as scratch:
                built = Path(scratch, "runtime.o")
                _call([*compiler.runtime, *flags, "-c", str(CPP / name), "-o", str(built)])
                _publish(built, path)
        objects.append(path)
    return objects


def _link(compiler: Compiler, objects: list[Path], library: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="orthrus-emulator-") as scratch:
        linked = Path(scratch, "kernel.so")
        _call([*compiler.link, "-shared", "-o", str(linked), *map(str, objects)])
        _publish(linked, library)


def _publish(made: Path, path: Path) -> None:
    """Moves a file into the cache in one step: other processes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        part.write(made.read_bytes())
        part.flush()
        os.fsync(part.fileno())
    os.replace(part.name, path)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if re.search(r"error|undefined", line)] or done.stderr.splitlines()
    raise CompileError("the kernel text does not compile as C++:\n  " + "\n  ".join(lines[:12]))

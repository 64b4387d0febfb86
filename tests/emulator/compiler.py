"""Finds a C++ compiler, compiles translated kernels and keeps them on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.emulator.errors import CompileError, EmulatorError

CPP = Path(__file__).parent / "cpp"
COMPILER_VARIABLE = "ORTHRUS_EMULATOR_CXX"
CACHE_VARIABLE = "ORTHRUS_EMULATOR_CACHE"
KERNEL_FOLDER = "/kernel"  # where debug information places the files that #line names


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


def _kernel_flags(compiler: Compiler, checked: bool, perturbed: bool) -> list[str]:
    flags = [*COMMON_FLAGS, "-std=gnu++14"]
    if perturbed:
        flags[flags.index("-ffp-contract=off")] = "-ffp-contract=fast"
        flags += ["-freciprocal-math", "-DEMU_PERTURBED"]
    if not checked:
        flags[flags.index("-w")] = "-Wuninitialized"
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
def _sources() -> bytes:
    # With their whole path, which the compiled code names in its messages: each checkout compiles its own.
    files = [Path(__file__), *sorted(CPP.iterdir())]
    return b"".join(str(path).encode() + path.read_bytes() for path in files)


def _key(*parts: object) -> str:
    digest = hashlib.sha256(_sources())
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()[:32]


def compile_kernel(unit: str, *, checked: bool, perturbed: bool = False) -> tuple[Path, list[str]]:
    """The shared library of a translated kernel, from the cache or made now (0.1 to 1 s).

    With the fast build come the compiler's warnings of uninitialised variables ("file:line: ..."). The checked
    build initialises every variable with a pattern, which silences g++'s.
    """
    compiler = find_compiler()
    flags = _kernel_flags(compiler, checked, perturbed)
    library = cache_folder() / f"{_key(unit, flags, compiler)}.so"
    remarks = library.with_suffix(".txt")
    if not (library.exists() and remarks.exists()):
        with tempfile.TemporaryDirectory(prefix="orthrus-emulator-") as scratch:
            Path(scratch, "kernel.cpp").write_text(unit)
            flags.append(f"-fdebug-prefix-map={scratch}={KERNEL_FOLDER}")
            said = _call([*compiler.kernel, *flags, f"-I{CPP}", "-c", "kernel.cpp", "-o", "kernel.o"], scratch)
            remarked = re.findall(r"^(.*?:\d+):\d+: (?:warning: )?(.*) \[-Wuninitialized\]", said, re.MULTILINE)
            Path(scratch, "remarks").write_text("".join(f"{place}: {what}\n" for place, what in remarked))
            objects = ["kernel.o", *map(str, _runtime(checked))]
            _call([*compiler.link, "-shared", "-o", "kernel.so", *objects], scratch)
            _publish(Path(scratch, "remarks"), remarks)
            _publish(Path(scratch, "kernel.so"), library)
        _forget_old()
    return library, remarks.read_text().splitlines()


@cache
def _forget_old() -> None:
    """Removes what no one has made again for two months, once a process."""
    for path in cache_folder().iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 60 * 24 * 3600:
                path.unlink()


def _runtime(checked: bool) -> list[Path]:
    compiler = find_compiler()
    flags = _runtime_flags(compiler, checked)
    objects = []
    for name in ["runtime.cpp", *(["checks.cpp"] if checked else [])]:
        path = cache_folder() / f"{_key(name, flags, compiler)}.o"
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix="orthrus-emulator-") as scratch:
                _call([*compiler.runtime, *flags, "-c", str(CPP / name), "-o", "runtime.o"], scratch)
                _publish(Path(scratch, "runtime.o"), path)
        objects.append(path)
    return objects


def _publish(made: Path, path: Path) -> None:
    """Moves a file into the cache in one step: other processes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        part.write(made.read_bytes())
        part.flush()
        os.fsync(part.fileno())
    Path(part.name).replace(path)


def _call(command: list[str], folder: str) -> str:
    """What the command says on stderr; CompileError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode == 0:
        return done.stderr
    lines = done.stderr.splitlines()
    errors = [line for line in lines if re.search(r"error|undefined|required from here|requested here", line)] or lines
    raise CompileError("the kernel text does not compile as C++:\n  " + "\n  ".join(errors[:12]))

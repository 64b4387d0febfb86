"""The Metal text that MLX generates for a custom kernel, obtained from MLX itself.

Without Metal MLX refuses to call a custom kernel, except while it traces a function for export; with
verbose=True it then prints the complete text: signature, address spaces, template line, header and body.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path

import mlx.core as mx

from tests.emulator.errors import EmulatorError
from tests.emulator.preprocess import Origin


def generated_text(kernel, call: dict) -> str:
    """What MLX generates for `kernel(**call)`, a kernel object that MLX itself made."""
    arrays = [value if isinstance(value, mx.array) else mx.array(value) for value in call["inputs"]]

    def traced(*inputs):
        return kernel(**{**call, "inputs": list(inputs), "verbose": True})

    with tempfile.TemporaryDirectory(prefix="orthrus-emulator-") as folder:
        printed = Path(folder, "printed")
        sys.stdout.flush()
        saved = os.dup(1)
        try:
            with printed.open("wb") as file:
                os.dup2(file.fileno(), 1)
                try:
                    mx.export_function(str(Path(folder, "traced.mlxfn")), traced, *arrays)
                finally:
                    ctypes.CDLL(None).fflush(None)
                    os.dup2(saved, 1)
        finally:
            os.close(saved)
        output = printed.read_text()
    start, fence = output.find("```\n"), output.rfind("\n```")
    if start < 0 or fence < start:
        raise EmulatorError(f"MLX printed no kernel text while tracing: {output[:200]!r}")
    return output[start + 4 : fence]


def origins(text: str, header: str, source: str, name: str, folders: tuple[Path, ...]) -> tuple[Origin, ...]:
    """Where the lines of a generated `text` come from: files of `folders`, else the header or body string."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in (".metal", ".h")]
    contents = [(path, path.read_text()) for path in files]
    found = [Origin(1, f"{name} (signature)", 1)]
    for part, label in ((header, "header"), (source, "source")):
        if not part.strip():
            continue
        at = text.rfind(part) if label == "source" else text.find(part)
        if at < 0:
            continue
        first = text.count("\n", 0, at) + 1
        found.append(Origin(first, f"{name} ({label})", 1))
        found += _from_files(part, first, contents)
        after = first + part.count("\n") + 1
        found.append(Origin(after, f"{name} (signature)", after))
    return tuple({origin.start: origin for origin in sorted(found, key=lambda origin: origin.start)}.values())


def _from_files(part: str, first: int, contents: list[tuple[Path, str]]) -> list[Origin]:
    found = []
    for path, content in contents:
        body = content.strip("\n")
        label = str(path.relative_to(path.parent.parent))
        if body and body in part:  # a whole file, perhaps one of several
            line = 1 + content.index(body[0])  # leading blank lines were stripped
            found.append(Origin(first + part.count("\n", 0, part.index(body)), label, line))
        elif part.strip("\n") in content:  # a piece of a file
            piece = part.strip("\n")
            skipped = part.index(piece[0]) if piece else 0
            found.append(Origin(first + skipped, label, content.count("\n", 0, content.index(piece)) + 1))
    return found

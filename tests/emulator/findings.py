"""Turns what the worker and the compiler report into findings that name lines, threads and elements."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.emulator.compiler import CPP, KERNEL_FOLDER
from tests.emulator.errors import FAULTS, Finding


@dataclass
class Buffer:
    """One device buffer of a launch.

    `values` are its contents before the launch (an array of any dtype), None for an uninitialised output.
    `writable` marks outputs; their contents after the launch are in `result`, bytes as uint8. `partly`
    allows the kernel to leave some of them unwritten.
    """

    name: str
    bytes: int
    itemsize: int
    values: np.ndarray | None = None
    writable: bool = False
    partly: bool = False
    result: np.ndarray | None = None


def remarked(remarks: list[str]) -> list[Finding]:
    """Findings from the compiler's warnings of uninitialised variables, "file:line: message" each."""
    findings = []
    for remark in remarks:
        place, message = remark.split(": ", 1)
        file, line = place.rsplit(":", 1)
        findings.append(Finding("uninitialised read", message, file, int(line)))
    return findings


def reported(items: list[dict], buffers: list[Buffer], library: Path) -> list[Finding]:
    """Findings from the worker's report about a launch of `library` over `buffers`."""
    addresses = sorted({call for item in items for call in [*item["calls"], item["other_call"]] if call})
    lines = _kernel_lines(library, addresses)
    findings: list[Finding] = []
    for item in items:
        file, line = item["file"], item["line"]
        if not line:
            file, line = next((lines[call] for call in item["calls"] if lines.get(call, ("", 0))[1]), ("", 0))
        text = item["text"]
        if item["region"] >= 0:
            text = f"{text}{_element(buffers[item['region']], item)}"
        if lines.get(item["other_call"], ("", 0))[1]:
            other_file, other_line = lines[item["other_call"]]
            text = f"{text}, other access at {other_file}:{other_line}"
        owned = item["thread"][0] >= 0
        finding = Finding(
            FAULTS[item["fault"] - 1],
            text,
            file,
            line,
            tuple(item["threadgroup"]) if owned else None,
            tuple(item["thread"]) if owned else None,
        )
        if not any((f.kind, f.file, f.line) == (finding.kind, file, line) and line for f in findings):
            findings.append(finding)
    return findings


def _element(buffer: Buffer, item: dict) -> str:
    offset, size = item["offset"], max(1, buffer.itemsize)
    index = f"{buffer.name}[{offset // size}]" + (f" + {offset % size} bytes" if offset % size else "")
    return f"{index} ({item['bytes']} bytes; {buffer.name} has {buffer.bytes // size} elements of {size} bytes)"


def _kernel_lines(library: Path, addresses: list[int]) -> dict[int, tuple[str, int]]:
    """Return address -> innermost (file, line) of the kernel text, by binutils' addr2line."""
    if not addresses:
        return {}
    # a return address belongs to the line after the call
    command = ["addr2line", "-a", "-i", "-e", str(library), *(hex(address - 1) for address in addresses)]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return {}
    lines: dict[int, tuple[str, int]] = {}
    address = 0
    for row in output.splitlines():
        if row.startswith("0x"):
            address = int(row, 16) + 1
            continue
        match = re.match(r"(.*):(\d+)", row)
        if not match or address in lines:
            continue
        file = match.group(1)
        if not (file.startswith(str(CPP)) or Path(file).name == "entry" or file.startswith("?")):
            lines[address] = (file.removeprefix(f"{KERNEL_FOLDER}/"), int(match.group(2)))
    return lines

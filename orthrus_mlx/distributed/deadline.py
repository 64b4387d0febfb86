"""A deadline for calls into MLX that hold Python's lock while they wait: no thread of this process could end them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The pipe on its stdin closes when the block is done and when this process dies.
_WATCHER = """
import os, select, signal, sys
seconds, message, pid = float(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if not select.select([0], [], [], seconds)[0] and os.getppid() == pid:
    os.write(2, f"orthrus-mlx: error: {message}\\n".encode())
    os.kill(pid, signal.SIGKILL)
"""


@contextmanager
def deadline(seconds: float, message: str) -> Iterator[None]:
    """End this process with `message` on stderr if the block takes longer."""
    arguments = [sys.executable, "-I", "-S", "-c", _WATCHER, str(seconds), message, str(os.getpid())]
    # In a session of its own, where Ctrl-C does not reach it.
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, start_new_session=True):
        yield

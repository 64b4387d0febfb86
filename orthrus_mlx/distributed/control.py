"""The connection between the leader and a follower: lines of JSON, and the end of the job when one of them is lost.

A collective of MLX waits for its peers for as long as it takes, so a rank that died quietly would hold all others.
Each side of a connection therefore sends a sign of life every `BEAT` seconds, an empty line, and ends its process
when the connection breaks or is silent for `SILENCE` seconds: no exception could reach a thread that waits in MLX.
A side that means to go says so with null first.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from queue import SimpleQueue
from types import TracebackType
from typing import Any

BEAT = 1.0
SILENCE = 10.0
FAREWELL = 2.0
_last_word = threading.Lock()


class Connection:
    """One side of a connected socket; what arrives is taken with `receive`.

    Args:
        connected: the socket.
        peer: how errors call the other side, such as "rank 1 (10.0.0.2)".
    """

    def __init__(self, connected: socket.socket, peer: str):
        self.peer = peer
        self._socket = connected
        self._closing = threading.Event()
        self._sending = threading.Lock()
        self._received: SimpleQueue[Any] = SimpleQueue()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.settimeout(SILENCE)
        self._reader = threading.Thread(target=self._read, name=f"reads {peer}", daemon=True)
        self._reader.start()
        threading.Thread(target=self._beat, name=f"beats for {peer}", daemon=True).start()

    def send(self, message: Any) -> None:
        """Send anything that JSON can carry; ends the process if the other side is lost."""
        self._send(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def receive(self) -> Any:
        """The next message, waiting for it; None is the last one."""
        return self._received.get()

    def close(self, last: Any = None) -> None:
        """Send a last message, and take the other side's going away as agreed from now on."""
        self._closing.set()
        self.send(last)
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return
        # Gone before the other side has read everything, this process would take the last message with it.
        self._reader.join(FAREWELL)

    def _send(self, line: bytes) -> None:
        try:
            with self._sending:
                self._socket.sendall(line)
        except OSError as error:
            self._lost(error)

    def _beat(self) -> None:
        while not self._closing.wait(BEAT):
            self._send(b"\n")

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    if not line.strip():
                        continue
                    message = json.loads(line)
                    if message is None:
                        self._closing.set()
                    self._received.put(message)
            self._lost(None)
        except (OSError, ValueError) as error:
            self._lost(error)

    def _lost(self, error: Exception | None) -> None:
        if self._closing.is_set():
            return
        if isinstance(error, TimeoutError):
            reason = f"no sign of life for {SILENCE:.0f} s"
        else:
            reason = "its process ended" if error is None else str(error)
        end_job(f"{self.peer} was lost: {reason}; start the job again")


def end_job(message: str) -> None:
    """Say why, and end this process whatever its other threads wait for. Only the first caller speaks."""
    with _last_word:
        sys.stderr.write(f"orthrus-mlx: error: {message}\n")
        sys.stderr.flush()
        os._exit(1)


def let_the_lost_speak() -> None:
    """After an error out of MLX: if a lost rank is the cause, its connection breaks now and the process ends here."""
    time.sleep(BEAT)


def before_a_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook`: the trace of an error that a lost rank caused would hide the cause."""
    if kind is RuntimeError:
        let_the_lost_speak()
    sys.__excepthook__(kind, error, trace)

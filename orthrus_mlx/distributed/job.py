"""Joining the job that `mlx.launch` started: MLX's group for the arrays, a connection to the leader for the rest."""

from __future__ import annotations

import atexit
import hmac
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import mlx.core as mx

from ..errors import OrthrusError, RanksError
from .control import Connection, before_a_trace, end_job
from .deadline import deadline

START_SECONDS = 120.0
"""How long ranks wait for each other at the start; machines come up, and import MLX, at different speeds."""

_TOKEN_BYTES = 32
_LEADER = 0


@dataclass(frozen=True)
class Launch:
    """What `mlx.launch` left in the environment.

    Attributes:
        backend: "ring", "jaccl" or "nccl".
        leader: the address at which the other ranks reach rank 0.
    """

    backend: str
    leader: str


class Ranks:
    """This process's place in a job of two ranks or more.

    Args:
        group: MLX's group, connected.
        leader: the leader's address.

    Attributes:
        group: for MLX's collectives.
        rank, size: which of how many this is.
        leads: whether this is rank 0, which runs the program.
    """

    def __init__(self, group: mx.distributed.Group, leader: str):
        self.group = group
        self.rank, self.size = group.rank(), group.size()
        self.leads = self.rank == _LEADER
        self._connections = _accept(group, leader) if self.leads else [_connect(group, leader)]
        sys.excepthook = before_a_trace
        atexit.register(self.close)

    def announce(self, message: Any) -> None:
        """Tell every follower."""
        for connection in self._connections:
            connection.send(message)

    def next(self) -> Any:
        """The leader's next message, in a follower; None is the end of the job."""
        return self._connections[0].receive()

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """Get ready, which any rank may fail at, once; the ranks go on when all have done it.

        Raises:
            OrthrusError: on the leader: its own error, or the first of the others'.
            SystemExit: on a follower, when any rank failed.
        """
        try:
            yield
        except OrthrusError as error:
            if not self.leads:
                self.fail(str(error))
            raise
        if self.leads:
            for connection in self._connections:
                failed = connection.receive()
                if failed is not None and failed["failed"] is not None:
                    raise RanksError(f"{connection.peer}: {failed['failed']}")
            self.announce("agreed")
            for connection in self._connections:
                watch = threading.Thread(target=_end_at_failure, args=(connection,), daemon=True)
                watch.start()
        else:
            self._connections[0].send({"failed": None})
            if self.next() is None:
                raise SystemExit(1)

    def fail(self, reason: str) -> NoReturn:
        """Tell the leader, whose word it is to say, why this follower cannot go on, and exit."""
        self._connections[0].send({"failed": reason})
        self.next()
        raise SystemExit(1)

    def close(self) -> None:
        """End the job, on the leader; on a follower only its own part. Called at exit."""
        # MLX complains about each collective that is still under way when it goes.
        for device in {mx.cpu, mx.default_device().type}:
            mx.synchronize(mx.default_stream(device))
        for connection in self._connections:
            connection.close()


def launched() -> Launch | None:
    """How `mlx.launch` started this process, or None where it did not or started it alone.

    Raises:
        RanksError: the launch cannot be understood.
    """
    environment = os.environ
    if "MLX_RANK" not in environment:
        return None
    if coordinator := environment.get("MLX_JACCL_COORDINATOR"):
        return Launch("jaccl", _host(coordinator))
    if address := environment.get("NCCL_HOST_IP"):
        return Launch("nccl", address) if environment.get("MLX_WORLD_SIZE") != "1" else None
    if file := environment.get("MLX_HOSTFILE"):
        try:
            text = Path(file).read_text(encoding="utf-8")
            # A list of addresses per rank; a job of one rank has an empty file.
            hosts = json.loads(text) if text.strip() else []
            return Launch("ring", _host(hosts[_LEADER][0])) if len(hosts) > 1 else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RanksError(f"{file}: not a hostfile of mlx.launch ({error})") from error
    raise RanksError("MLX_RANK is set, but neither ring, jaccl nor nccl is; start the ranks with mlx.launch")


def join() -> Ranks | None:
    """The job that this process is a rank of; None where it was started alone. MLX is left alone then.

    Raises:
        RanksError: the ranks cannot connect.
    """
    launch = launched()
    if launch is None:
        return None
    rank = os.environ["MLX_RANK"]
    late = f"rank {rank}: not all ranks came within {START_SECONDS:.0f} s; are their machines up, their ports open?"
    try:
        with deadline(START_SECONDS, late):
            return Ranks(mx.distributed.init(strict=True, backend=launch.backend), launch.leader)
    except (RuntimeError, ValueError, OSError) as error:
        raise RanksError(f"rank {rank}: cannot join the {launch.backend} group ({error})") from error


def _end_at_failure(connection: Connection) -> None:
    message = connection.receive()
    if message is not None:
        end_job(f"{connection.peer}: {message['failed']}")


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _accept(group: mx.distributed.Group, leader: str) -> list[Connection]:
    """The leader's side: one connection per follower, in the order of their ranks.

    The port is open to the network for a moment: the secret travels over the group, and shows who may connect.
    """
    secret = secrets.token_bytes(_TOKEN_BYTES)
    family = socket.AF_INET6 if ":" in leader else socket.AF_INET
    with socket.create_server((leader, 0), family=family, backlog=group.size()) as server:
        _shared(group, [server.getsockname()[1], *secret])
        found: dict[int, Connection] = {}
        while len(found) < group.size() - 1:
            connected, address = server.accept()
            rank = _introduced(connected, secret)
            if rank is None or rank in found:
                connected.close()
            else:
                found[rank] = Connection(connected, f"rank {rank} ({address[0]})")
    return [found[rank] for rank in sorted(found)]


def _connect(group: mx.distributed.Group, leader: str) -> Connection:
    port, *secret = _shared(group, [0] * (1 + _TOKEN_BYTES))
    connected = socket.create_connection((leader, port), timeout=START_SECONDS)
    connected.sendall(bytes(secret) + bytes([group.rank()]))
    return Connection(connected, f"rank {_LEADER} ({leader})")


def _introduced(connected: socket.socket, secret: bytes) -> int | None:
    """The rank of whoever connected, if the secret is known there."""
    connected.settimeout(5)
    try:
        with connected.makefile("rb", buffering=0) as stream:
            said = b""
            while len(said) <= _TOKEN_BYTES and (more := stream.read(_TOKEN_BYTES + 1 - len(said))):
                said += more
    except OSError:
        return None
    return said[_TOKEN_BYTES] if len(said) > _TOKEN_BYTES and hmac.compare_digest(said[:_TOKEN_BYTES], secret) else None


def _shared(group: mx.distributed.Group, values: list[int]) -> list[int]:
    """The leader's `values`; the others give as many zeros."""
    total = mx.distributed.all_sum(mx.array(values, dtype=mx.int32), group=group)
    return cast(list[int], total.tolist())

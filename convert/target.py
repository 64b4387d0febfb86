"""The folder being written: hidden beside its target until complete, then renamed into place."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orthrus_mlx.errors import CheckpointError
from orthrus_mlx.units import byte_count


def check_target(target: Path, force: bool) -> None:
    """Refuse to overwrite what may not be overwritten. Raises CheckpointError."""
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise CheckpointError(f"{target}: already exists; choose another --mlx-path, or replace it with --force")
    if target.is_symlink() or not target.is_dir():
        raise CheckpointError(f"{target}: is not a folder, so --force does not replace it")
    # --force is for replacing models; a mistyped path must not cost a home folder.
    if any(target.iterdir()) and not (target / "config.json").is_file():
        raise CheckpointError(f"{target}: holds no config.json, so --force does not replace it; remove it yourself")


def check_apart(target: Path, source: Path) -> None:
    """Refuse a target that is, holds or lies in the source folder. Raises CheckpointError."""
    real_target, real_source = target.resolve(), source.resolve()
    if real_target.is_relative_to(real_source) or real_source.is_relative_to(real_target):
        raise CheckpointError(f"{target}: overlaps the source folder {source}; choose another --mlx-path")


def check_space(folder: Path, needed: int) -> None:
    """Refuse to start when the disk of `folder` lacks `needed` bytes. Raises CheckpointError."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{folder.parent}: not enough disk space: {byte_count(needed)} needed, {byte_count(free)} free;"
            " free some or choose another --mlx-path"
        )


@contextmanager
def fresh_folder(target: Path, force: bool) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place when the block ends without an error.

    It is named `.<name>.partial-<pid>`; one whose process has died is removed by the next run for the same
    target. With `force` an existing target is set aside first and removed only after the new folder stands.
    After an error or Ctrl-C nothing is left. Raises CheckpointError as `check_target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clean_up_after_the_dead(target)
    check_target(target, force)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        sync_folder(partial)
        check_target(target, force)
        _put_in_place(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_file(file: Path, data: bytes) -> None:
    """Write and flush a small file to the disk."""
    with file.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (created, renamed) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(partial: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        if replaces:
            old.rename(target)
        raise
    sync_folder(target.parent)
    if replaces:
        shutil.rmtree(old, ignore_errors=True)


def _clean_up_after_the_dead(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(partial|replaced)-(\d{{1,9}})")
    for entry in list(target.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if match is None or _is_alive(int(match[2])):
            continue
        if match[1] == "replaced" and not target.exists():
            entry.rename(target)  # the run died between setting the old folder aside and placing the new one
        else:
            shutil.rmtree(entry, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

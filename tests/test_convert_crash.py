"""What is on the disk after a conversion that did not end well, and what --force may replace."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from convert_checkpoints import write_checkpoint, write_safetensors

from orthrus_mlx import load
from orthrus_mlx.convert import Progress, convert, converter
from orthrus_mlx.errors import CheckpointError

DIE = """
import os, signal, sys
from orthrus_mlx.convert import convert, converter
converter.SLAB_BYTES = 20_000
stage, share, how = sys.argv[1], float(sys.argv[2]), getattr(signal, sys.argv[3])
def die(progress):
    if progress.stage == stage and progress.done >= share * progress.total:
        os.kill(os.getpid(), how)
convert("source", "out", force=True, on_progress=die)
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def die(folder: Path, stage: str, share: float, how: str = "SIGKILL") -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", DIE, stage, str(share), how]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(("stage", "share"), [("write", 0.0), ("write", 0.6), ("verify", 1.0)])
def test_a_killed_run_leaves_nothing_that_loads_and_the_next_run_cleans_up(tmp_path, stage, share):
    write_checkpoint(tmp_path / "source")
    assert die(tmp_path, stage, share).returncode == -signal.SIGKILL
    (partial,) = (name for name in names(tmp_path) if name != "source")
    assert partial.startswith(".out.partial-")
    for loader in (load, mlx_lm.load):
        with pytest.raises((CheckpointError, FileNotFoundError)):
            loader(str(tmp_path / partial))
    convert(tmp_path / "source", tmp_path / "out")
    assert names(tmp_path) == ["out", "source"]
    load(tmp_path / "out")


def test_a_run_killed_while_replacing_leaves_the_old_model_as_it_was(tmp_path):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", quantize=True)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert die(tmp_path, "verify", 1.0).returncode == -signal.SIGKILL
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_ctrl_c_leaves_nothing(tmp_path):
    write_checkpoint(tmp_path / "source")
    interrupted = die(tmp_path, "write", 0.5, "SIGINT")
    assert interrupted.returncode != 0
    assert "KeyboardInterrupt" in interrupted.stderr
    assert names(tmp_path) == ["source"]


def test_an_exception_from_the_callers_progress_leaves_nothing(tmp_path):
    write_checkpoint(tmp_path / "source")

    def fail(progress: Progress) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        convert(tmp_path / "source", tmp_path / "out", on_progress=fail)
    assert names(tmp_path) == ["source"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, code):
    write_checkpoint(tmp_path / "source")
    pwrite, room = os.pwrite, 300_000

    def pwrite_to_a_small_disk(descriptor: int, data: memoryview, position: int) -> int:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise OSError(code, os.strerror(code))
        return pwrite(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", pwrite_to_a_small_disk)
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "source", tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: disk full; nothing was left behind; free some space or choose another --mlx-path"
    )
    assert names(tmp_path) == ["source"]


def test_too_little_space_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "source")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**5, 10**5))
    with pytest.raises(CheckpointError, match=r"not enough disk space: .* kB needed, 100\.00 kB free"):
        convert(tmp_path / "source", tmp_path / "out")
    assert names(tmp_path) == ["source"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    weights = write_checkpoint(tmp_path / "source")
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, position: pwrite(descriptor, data[:4093], position))
    convert(tmp_path / "source", tmp_path / "out")
    assert set(mx.load(str(tmp_path / "out" / "model.safetensors"))) == {n for n in weights if "_diff" not in n}


def test_bytes_that_read_back_differently_are_found(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "source")
    pwrite, damaged = os.pwrite, False

    def pwrite_with_one_flipped_bit(descriptor: int, data: memoryview, position: int) -> int:
        nonlocal damaged
        if position > 100_000 and not damaged:
            damaged = True
            data = memoryview(bytes([data[0] ^ 1]) + bytes(data[1:]))
        return pwrite(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", pwrite_with_one_flipped_bit)
    with pytest.raises(CheckpointError, match="reads back differently; the disk may be failing"):
        convert(tmp_path / "source", tmp_path / "out")
    assert damaged
    assert names(tmp_path) == ["source"]


def test_a_written_file_that_lost_its_tail_is_found(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "source")
    monkeypatch.setattr(
        converter, "copy_tokenizer", lambda source, folder: os.truncate(folder / "model.safetensors", 9)
    )
    with pytest.raises(CheckpointError, match="corrupt or truncated header"):
        convert(tmp_path / "source", tmp_path / "out")
    assert names(tmp_path) == ["source"]


def test_a_written_file_that_lost_a_tensor_is_found(tmp_path, monkeypatch):
    weights = write_checkpoint(tmp_path / "source")

    def rewrite(source: Path, folder: Path) -> None:
        diffusion = [name for name in weights if "_diff" in name]
        write_safetensors(folder / "orthrus_diff.safetensors", {name: weights[name] for name in diffusion[1:]})

    monkeypatch.setattr(converter, "copy_tokenizer", rewrite)
    with pytest.raises(CheckpointError, match="the written headers differ from the plan"):
        convert(tmp_path / "source", tmp_path / "out")
    assert names(tmp_path) == ["source"]


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    write_checkpoint(tmp_path / "source")

    def someone_else_arrives(progress: Progress) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "theirs").write_text("x")

    with pytest.raises(CheckpointError, match="already exists"):
        convert(tmp_path / "source", tmp_path / "out", on_progress=someone_else_arrives)
    assert names(tmp_path / "out") == ["theirs"]


def test_an_unwritable_place_is_one_line(tmp_path):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "source", tmp_path / "file" / "out")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)


# --- --force


def test_nothing_is_overwritten_without_force(tmp_path):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out")
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    with pytest.raises(CheckpointError, match="already exists; choose another --mlx-path, or replace it with --force"):
        convert(tmp_path / "source", tmp_path / "out")
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="already exists"):
        convert(tmp_path / "source", tmp_path / "empty")


def test_an_existing_target_is_refused_before_the_source_is_looked_at(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="already exists"):
        convert("no/such-repository", tmp_path / "out")


def test_force_replaces_a_model_folder_whole(tmp_path):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", max_shard_size="100KB")
    convert(tmp_path / "source", tmp_path / "out", force=True)
    assert names(tmp_path) == ["out", "source"]
    assert [name for name in names(tmp_path / "out") if "safetensors" in name] == [
        "model.safetensors",
        "orthrus_diff.safetensors",
    ]


def test_force_keeps_the_old_model_when_the_conversion_fails(tmp_path):
    weights = write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out")
    weights["model.norm.weight"][0] = float("nan")
    write_checkpoint(tmp_path / "source", weights=weights)
    with pytest.raises(CheckpointError, match="NaN"):
        convert(tmp_path / "source", tmp_path / "out", force=True)
    load(tmp_path / "out")
    assert names(tmp_path) == ["out", "source"]


def test_force_puts_the_old_model_back_when_the_last_rename_fails(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out")
    rename = Path.rename

    def fail_for_the_new_one(path: Path, target: Path) -> Path:
        if ".partial-" in path.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(CheckpointError, match="Input/output error"):
        convert(tmp_path / "source", tmp_path / "out", force=True)
    load(tmp_path / "out")
    assert names(tmp_path) == ["out", "source"]


def test_force_does_not_replace_what_is_no_model(tmp_path):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "model")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    for name, fault in (
        ("home", "holds no config.json, so --force does not replace it"),
        ("file", "is not a folder"),
        ("link", "is not a folder"),
    ):
        with pytest.raises(CheckpointError, match=fault):
            convert(tmp_path / "source", tmp_path / name, force=True)
    assert (tmp_path / "home" / "letters.txt").read_text() == "dear"


@pytest.mark.parametrize("target", ["source", "source/inside", ".", "source/../source"])
def test_force_never_touches_the_source(tmp_path, target):
    write_checkpoint(tmp_path / "source")
    (tmp_path / "config.json").write_text("{}")
    before = names(tmp_path / "source")
    with pytest.raises(CheckpointError, match="overlaps the source folder"):
        convert(tmp_path / "source", tmp_path / target, force=True)
    assert names(tmp_path / "source") == before


# --- leftovers of others


def test_only_leftovers_of_dead_processes_for_this_target_are_removed(tmp_path, dead_pid):
    write_checkpoint(tmp_path / "source")
    kept = [f".out.partial-{os.getppid()}", f".other.partial-{dead_pid}", f".out.partial-{dead_pid}x"]
    for name in (*kept, f".out.partial-{dead_pid}", f".out.partial-{os.getpid()}"):
        (tmp_path / name).mkdir()
    convert(tmp_path / "source", tmp_path / "out")
    assert names(tmp_path) == sorted([*kept, "out", "source"])


def test_a_model_set_aside_by_a_run_that_died_comes_back(tmp_path, dead_pid):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", quantize=True)
    (tmp_path / "out").rename(tmp_path / f".out.replaced-{dead_pid}")
    with pytest.raises(CheckpointError, match="already exists"):
        convert(tmp_path / "source", tmp_path / "out")
    assert names(tmp_path) == ["out", "source"]
    assert load(tmp_path / "out")[0].layers[0].self_attn.q_proj.bits == 4


def test_an_old_model_that_a_dead_run_had_replaced_is_removed(tmp_path, dead_pid):
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / f".out.replaced-{dead_pid}")
    convert(tmp_path / "source", tmp_path / "out", force=True)
    assert names(tmp_path) == ["out", "source"]

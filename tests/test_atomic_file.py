"""Files appear whole or not at all, with the permissions that any new file gets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orthrus_mlx.atomic_file import replacing, write_json, write_text


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_text_and_json_arrive_as_they_are_and_leave_nothing_else(tmp_path):
    write_text(tmp_path / "notes.md", "naïve\n日本\n")
    write_json(tmp_path / "new" / "folder" / "chat.json", {"said": "日本", "n": [1, None]})
    assert (tmp_path / "notes.md").read_bytes() == "naïve\n日本\n".encode()
    text = (tmp_path / "new" / "folder" / "chat.json").read_text("utf-8")
    assert json.loads(text) == {"said": "日本", "n": [1, None]}
    assert "日本" in text and text.endswith("}\n")
    assert sorted(names(tmp_path)) == ["new", "notes.md"] and names(tmp_path / "new" / "folder") == ["chat.json"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_nothing_stands_under_the_name_until_the_block_has_ended(tmp_path):
    file = tmp_path / "cache.safetensors"
    with replacing(file) as partial:
        assert partial.suffix == ".safetensors" and not list(tmp_path.glob("cache*")), (
            "no pattern finds it half-written"
        )
        partial.write_bytes(b"whole")
        assert not file.exists()
    assert file.read_bytes() == b"whole"


def test_writers_of_one_file_do_not_meet(tmp_path):
    file = tmp_path / "file"
    with replacing(file) as first, replacing(file) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first", "the last to end"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("fails", ["block", "fsync", "no file"])
def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch, fails):
    file = tmp_path / "file"
    write_text(file, "earlier")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    if fails == "fsync":
        monkeypatch.setattr("os.fsync", full)
    with pytest.raises((OSError, KeyboardInterrupt)), replacing(file) as partial:
        if fails != "no file":
            partial.write_text("later")
        if fails == "block":
            raise KeyboardInterrupt
    assert file.read_text() == "earlier" and names(tmp_path) == ["file"]


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    file, flushed = tmp_path / "file", []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append((os.fstat(descriptor).st_size, file.exists())))
    with replacing(file) as partial:
        partial.write_bytes(b"12345")
    assert flushed == [(5, False)]

"""Hub ids: the real Hugging Face client against a hub on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from convert_checkpoints import ORTHRUS, make_weights, write_checkpoint
from fakehub import FakeHub

from orthrus_mlx import load
from orthrus_mlx.convert import convert
from orthrus_mlx.errors import CheckpointError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with FakeHub() as hub:
        point_client_at(hub, monkeypatch, tmp_path)
        yield hub


def point_client_at(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give this process's client `hub` and an empty cache; it read its environment when it was imported, long ago."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def refusal(tmp_path, repo, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        convert(repo, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_a_repository_is_downloaded_and_converted(tmp_path, hub):
    write_checkpoint(tmp_path / "repository", shards=2)
    hub.add("owner/model", tmp_path / "repository")
    convert("owner/model", tmp_path / "out")
    assert load(tmp_path / "out")[0].args.block_size == 4


def test_code_and_pickles_are_not_even_downloaded(tmp_path, hub):
    write_checkpoint(tmp_path / "repository")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (tmp_path / "repository" / name).write_bytes(b"\x80\x04.")
    hub.add("owner/model", tmp_path / "repository")
    convert("owner/model", tmp_path / "out")
    assert not [name for name in hub.downloads if name.endswith((".py", ".bin", ".pt"))]
    assert "model.safetensors" in hub.downloads


def test_licences_come_along_and_subfolders_do_not(tmp_path, hub):
    write_checkpoint(tmp_path / "repository")
    (tmp_path / "repository" / "NOTICE.txt").write_text("a notice\n")
    (tmp_path / "repository" / "onnx").mkdir()
    for name in ("config.json", "LICENSE", "model.safetensors"):
        (tmp_path / "repository" / "onnx" / name).write_text("{}")
    hub.add("owner/model", tmp_path / "repository")
    convert("owner/model", tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text() == "a licence\n"
    assert (tmp_path / "out" / "NOTICE.txt").read_text() == "a notice\n"
    assert len(hub.downloads) == len(set(hub.downloads)), "a name came from two folders"


def test_revision_chooses_the_version(tmp_path, hub):
    write_checkpoint(tmp_path / "one")
    write_checkpoint(tmp_path / "two", ORTHRUS | {"block_size": 8}, weights=make_weights(ORTHRUS, seed=2))
    hub.add("owner/model", tmp_path / "one")
    hub.add("owner/model", tmp_path / "two", revision="v2")
    assert convert("owner/model", tmp_path / "main").args.block_size == 4
    assert convert("owner/model", tmp_path / "v2", revision="v2").args.block_size == 8
    commit = hub.commit("owner/model", "v2")
    assert convert("owner/model", tmp_path / "commit", revision=commit).args.block_size == 8


def test_a_second_conversion_downloads_nothing_again(tmp_path, hub):
    write_checkpoint(tmp_path / "repository")
    hub.add("owner/model", tmp_path / "repository")
    convert("owner/model", tmp_path / "one")
    hub.downloads.clear()
    convert("owner/model", tmp_path / "two", quantize=True)
    assert hub.downloads == []


def test_missing_repository(tmp_path, hub):
    assert "no such folder here and no such repository on the hub" in refusal(tmp_path, "owner/absent")


def test_gated_repository(tmp_path, hub):
    hub.gate("owner/gated")
    assert "owner/gated: access is gated" in refusal(tmp_path, "owner/gated")


def test_missing_revision(tmp_path, hub):
    write_checkpoint(tmp_path / "repository")
    hub.add("owner/model", tmp_path / "repository")
    assert "owner/model@v9: the repository has no such revision" in refusal(tmp_path, "owner/model", revision="v9")


def test_repository_with_pickled_weights_only(tmp_path, hub):
    write_checkpoint(tmp_path / "repository")
    (tmp_path / "repository" / "model.safetensors").rename(tmp_path / "repository" / "pytorch_model.bin")
    hub.add("owner/model", tmp_path / "repository")
    assert "no model*.safetensors; pickled weights (.bin, .pt) are never read" in refusal(tmp_path, "owner/model")
    assert "pytorch_model.bin" not in hub.downloads


def test_hub_out_of_reach(tmp_path, monkeypatch):
    with FakeHub() as gone:
        pass
    point_client_at(gone, monkeypatch, tmp_path)
    assert "the hub cannot be reached" in refusal(tmp_path, "owner/model")


def test_download_that_breaks_off(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client's waits between its five attempts
    write_checkpoint(tmp_path / "repository")
    hub.add("owner/model", tmp_path / "repository")
    hub.breaks_off_after = 1000
    told = refusal(tmp_path, "owner/model")
    assert told.startswith("owner/model: the download failed (") and "()" not in told
    hub.breaks_off_after = None
    convert("owner/model", tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["model", "a/b/c", "./model", "/no/such/folder", "owner/../model", "owner/mo del", "owner/mo--del"]
)
def test_names_that_are_neither_folder_nor_repository(tmp_path, name):
    assert "no such folder, and not a Hugging Face id (owner/name)" in refusal(tmp_path, name)


def test_the_command_line_finds_the_hub_through_hf_endpoint(tmp_path):
    write_checkpoint(tmp_path / "repository")
    with FakeHub() as hub:
        hub.add("owner/model", tmp_path / "repository", revision="v1")
        command = [sys.executable, "-m", "orthrus_mlx.convert", "--hf-path", "owner/model", "--revision", "v1"]
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        run = subprocess.run(
            command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, check=True
        )
    stages = [line.split()[0] for line in run.stderr.splitlines()]
    assert stages == ["write", "write", "verify", "verify"], f"a line per file and no bar: {run.stderr}"
    assert (tmp_path / "mlx_model" / "config.json").is_file()

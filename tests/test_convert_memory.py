"""Memory while converting: slabs, not shards, not the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from convert_checkpoints import ORTHRUS, write_checkpoint

# The process's own peak is read where the kernel gives it: getrusage's also counts the parent before exec.
MEASURE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from orthrus_mlx.convert import convert

def peak():
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

convert("warm", "warm-out", **json.loads(sys.argv[1]))
before = peak()
result = convert("source", "out", **json.loads(sys.argv[1]))
used = peak() - before
ballast = np.ones(result.source_bytes, np.uint8)
print(json.dumps({"used": used, "gauge": peak() - before, "source": result.source_bytes, "written": result.files}))
"""
LARGE = ORTHRUS | {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
}


def write_sources(folder: Path, shards: int, layers: int) -> Path:
    write_checkpoint(folder / "warm")
    write_checkpoint(folder / "source", LARGE | {"num_hidden_layers": layers}, shards=shards)
    return folder


def measure(folder: Path, **options: object) -> dict:
    command = [sys.executable, "-c", MEASURE, json.dumps(options | {"force": True})]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["gauge"] >= measured["source"], "the gauge must see memory the size of the model"
    return measured


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("memory"), shards=2, layers=6)


@pytest.mark.parametrize("options", [{}, {"quantize": True}, {"dtype": "float32"}], ids=str)
def test_a_conversion_needs_less_memory_than_its_largest_shard(sources, summary, options):
    measured = measure(sources, **options)
    summary.append(
        f"converter {options or ''}: {measured['source'] / 1e6:.0f} MB of weights in 2 shards,"
        f" {measured['used'] / 1e6:.0f} MB of memory"
    )
    assert measured["used"] < measured["source"] / 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path):
    small = write_sources(tmp_path / "small", shards=2, layers=3)
    large = write_sources(tmp_path / "large", shards=5, layers=18)
    for options in ({}, {"quantize": True}, {"quantize": True, "q_mode": "mxfp4"}):
        measured = [measure(folder, **options) for folder in (small, large)]
        assert measured[1]["source"] > 4 * measured[0]["source"]
        assert measured[1]["used"] < measured[0]["used"] + 20e6, options

"""`orthrus-mlx convert`: the converter's own command line."""

from __future__ import annotations

from orthrus_mlx.convert.cli import add_arguments, run

__all__ = ["add_arguments", "run"]

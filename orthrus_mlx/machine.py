"""What a measurement was made on: device, operating system, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

BACKEND_WHEELS = ("mlx-metal", "mlx-cpu", "mlx-cuda-13", "mlx-cuda-12")


def installed(names: Iterable[str]) -> list[str]:
    """ "name version" of each distribution that is installed."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def describe_machine() -> dict[str, str]:
    """Labels and values, in the order of a report."""
    import mlx.core as mx

    device = str(mx.default_device().type).removeprefix("DeviceType.")
    return {
        "device": f"{device}, {mx.device_info().get('device_name', 'name unknown')}",
        "system": f"{platform.platform()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "mlx": f"{version('mlx')} ({', '.join(installed(BACKEND_WHEELS)) or 'no backend wheel found'})",
        "mlx-lm": version("mlx-lm"),
        "orthrus-mlx": version("orthrus-mlx"),
    }

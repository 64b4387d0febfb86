"""Runs `mx.fast.metal_kernel` kernels on Linux: the text that MLX generates, compiled as C++, every thread executed."""

from tests.emulator.errors import CompileError, EmulatorError, Finding, KernelFault
from tests.emulator.metal import emulated_metal, run_source

__all__ = ["CompileError", "EmulatorError", "Finding", "KernelFault", "emulated_metal", "run_source"]

"""Prints the predictions of docs/kernels.md: `python benchmarks/kernel_roofline.py`. Nothing is measured.

A pass of the linear layers over M rows takes the longer of two times: the weights' bytes over the memory bandwidth,
and 2 (M + d) operations per weight over 60 % of the fp32 rate, d = 1 where weights are dequantised.
"""

from __future__ import annotations

MACHINES = {
    "M1": (68, 2.6),
    "M1 Max": (400, 10.4),
    "M2 Max": (400, 13.6),
    "M3 Max (40 cores)": (400, 14.2),
    "M4": (120, 4.3),
    "M4 Pro (20 cores)": (273, 8.5),
    "M4 Max (40 cores)": (546, 17.0),
    "M5": (153, 4.2),
}
"""Gigabytes and fp32 TFLOP per second."""

FORMATS = {"bf16": (2.0, 0), "8 bits": (1.0 + 4 / 64, 1), "4 bits": (0.5 + 4 / 64, 1)}
"""Bytes per weight with 16-bit scales and biases for groups of 64, and d."""

REACHED = 0.6

# (hidden, intermediate, query heads, layers) of Orthrus-Qwen3; 8 key/value heads of 128
MODELS = {"1.7B": (2048, 6144, 16, 28), "4B": (2560, 9728, 32, 36), "8B": (4096, 12288, 32, 36)}


def seconds(bandwidth: float, rate: float, bytes_: float, dequantised: int, rows: int) -> float:
    """Per 10^9 weights."""
    return max(bytes_ / bandwidth, 2 * (rows + dequantised) / (REACHED * rate * 1000))


def cost(bandwidth: float, rate: float, bytes_: float, dequantised: int, rows: int) -> float:
    """A pass over `rows` rows in one-row passes."""
    return seconds(bandwidth, rate, bytes_, dequantised, rows) / seconds(bandwidth, rate, bytes_, dequantised, 1)


def fusions(hidden: int, intermediate: int, heads: int, rows: int) -> dict[str, tuple[int, int]]:
    """By fusion: launches and bytes that it would save in one layer, 16-bit activations.

    A launch that is left out reads its input and writes its output no more; views that MLX copies to make them
    contiguous count as launches.
    """
    q, kv, value = heads * 128, 8 * 128, 2 * rows
    return {
        "q/k RMSNorm + RoPE": (6, value * 2 * (2 * (q + kv) + kv)),
        "residual + RMSNorm": (2, value * 2 * hidden),
        "SwiGLU in gate/up": (1, value * 3 * intermediate),
    }


def main() -> None:
    rows = (8, 16, 32)
    print(f"{'':18}" + "".join(f"{name:>18}" for name in FORMATS) + f"   a pass over {rows} rows in one-row passes")
    for machine, rates in MACHINES.items():
        cells = [" / ".join(f"{cost(*rates, *form, r):.1f}" for r in rows) for form in FORMATS.values()]
        print(f"{machine:18}" + "".join(f"{cell:>18}" for cell in cells))
    print("\nfusions not built: launches and bytes saved in a layer, of the layer's weights at 4 bits")
    for model, (hidden, intermediate, heads, layers) in MODELS.items():
        weights = hidden * ((heads + 16) * 128 + heads * 128 + 3 * intermediate) * FORMATS["4 bits"][0]
        for r in (1, 32):
            for name, (launches, bytes_) in fusions(hidden, intermediate, heads, r).items():
                saved = f"{launches} x {layers} launches  {bytes_ / 1e6:6.3f} MB  {100 * bytes_ / weights:.2f} %"
                print(f"{model:5} {r:2} rows  {name:20} {saved}")


if __name__ == "__main__":
    main()

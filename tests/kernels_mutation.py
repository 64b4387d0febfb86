"""Plants faults in the kernels and counts which of them their tests notice: `python -m tests.kernels_mutation`.

Every barrier is dropped in turn, then each fault of `FAULTS` is planted: strides, masks, tails, offsets, merges,
sizes of threadgroup memory, and changes that break nothing but the equality of bits between row counts. A mutant
must be refused by the compiler, reported by the checked build, or give a wrong result; survivors need a reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from orthrus_mlx.kernels.linear import block_linear
from orthrus_mlx.kernels.verify import accepted_path, choose, choose_reference
from tests.emulator import emulated_metal
from tests.emulator.mutation import Mutation, Outcome, dropped_barriers, exact, try_mutations
from tests.kernels_cases import DTYPES, assert_close, assert_same_bits, float64, make_weight, normal, weight_values
from tests.test_kernels_attention import Sequence, check_chain_exact, check_tree_exact, masks

# Checks: small shapes that reach every branch, with the bits of a row alone where row counts differ ----------


def linear(form: str, dtype: str, family: str, batches: tuple[int, ...] = (3, 32)) -> Callable[[], None]:
    def check() -> None:
        rng = np.random.default_rng(1)
        N, K = 41, {"ragged": 603, "dense": 520}.get(form, 896)
        x = normal(rng, (32, K), DTYPES[dtype])
        weight = make_weight(rng, N, K, form, DTYPES[dtype])
        alone = block_linear(x[1:2], weight, family)
        for rows in batches:
            y = block_linear(x[:rows], weight, family)
            assert_close(y, float64(x[:rows]) @ weight_values(weight).T, f"{rows} rows")
            assert_same_bits(y[1:2], alone, f"row 1 of {rows}")

    return check


def wide_attention() -> None:
    """Two tiles of query rows to a simdgroup."""
    rng = np.random.default_rng(4)
    sequence = Sequence.random(rng, 8, 1, 300, 64, mx.float32, "mma")
    block = list(range(250, 261))
    mask = masks(rng, 11)["tree"]
    assert_close(sequence.block(250, block, mask), sequence.expected(250, block, mask), "11 rows of 8 heads")


def attention(family: str, D: int = 64, bits: int = 0) -> Callable[[], None]:
    def check() -> None:
        rng = np.random.default_rng(2)
        sequence = Sequence.random(rng, 4, 2, 300, D, mx.float32, family, bits=bits)
        check_chain_exact(sequence, 255, 3)
        check_tree_exact(sequence, 250, [-1, 0, 0, 1, 2, 3, 4, 6, 5])
        for offset, rows in ((30, 5), (250, 11)):
            block = list(range(offset, offset + rows))
            for name, mask in masks(rng, rows).items():
                y = sequence.block(offset, block, mask)
                assert_close(y, sequence.expected(offset, block, mask), f"{name} at {offset}")

    return check


def choice() -> None:
    rng = np.random.default_rng(3)
    for V in (4999, 6000):
        logits = normal(rng, (9, V), mx.float32)
        logits[:, [70, 4500]] = 9.0
        keys = mx.array([[5, p] for p in range(9)], dtype=mx.uint32)
        for temperature in (0.0, 0.5):
            expected = choose_reference(logits, temperature, keys)
            assert choose(logits, temperature, keys).tolist() == expected.tolist()
    # two candidates, one of them the middle of an odd vocabulary
    logits = mx.full((9, 4999), -float("inf"))
    logits[:, [17, 2499]] = 0.0
    assert choose(logits, 1.0, keys).tolist() == choose_reference(logits, 1.0, keys).tolist()
    # the first half, the middle and the second half of an odd vocabulary; more pieces than a simdgroup has lanes
    logits = mx.full((4, 140001), -1.0)
    for row, token in enumerate((3, 70000, 70001, 140000)):
        logits[row, token] = 1.0
    assert choose(logits, 0.0).tolist() == [3, 70000, 70001, 140000]


def path() -> None:
    tokens = mx.array([9, 1, 2, 3, 3, 5, 5, 7, 1], dtype=mx.uint32)
    parents = mx.array([-1, 0, 0, 1, 2, 3, 4, 6, 7], dtype=mx.int32)
    chosen = mx.array([2, 3, 3, 5, 5, 0, 7, 6, 0], dtype=mx.uint32)
    nodes, count = accepted_path(tokens, chosen, parents)
    assert nodes.tolist() == [0, 2, 4, 6, 7, -1, -1, -1, -1]
    assert count.tolist() == [5]


FMA, MMA = linear("dense", "float32", "fma"), linear("dense", "bfloat16", "mma")
FMA_RAGGED, MMA_RAGGED = linear("ragged", "bfloat16", "fma"), linear("ragged", "float32", "mma")
FMA_AFFINE = linear("affine4g64", "float32", "fma", (3,))
NVFP4, MXFP4 = linear("nvfp4", "float32", "fma", (3,)), linear("mxfp4", "float32", "mma", (3,))
ATTENTION = {family: attention(family) for family in ("fma", "mma")}
QUANTIZED = attention("mma", 128, 4)


@dataclass(frozen=True)
class Fault:
    """A planted fault and the check that must notice it; `survives` explains one that no check can notice."""

    check: Callable[[], None]
    description: str
    old: str
    new: str
    kernel: str = ""
    survives: str = ""

    @property
    def mutation(self) -> Mutation:
        return exact(self.description, self.old, self.new, kernel=self.kernel)


FAULTS = [
    # block_linear, scalar
    Fault(FMA, "lanes beyond K read on", "k < K && n0 < N", "n0 < N"),
    Fault(FMA_RAGGED, "columns beyond N are read", "min(n0 + c, N - 1)", "n0 + c"),
    Fault(FMA, "a step too long", "start += 32 * VALUES", "start += 32 * VALUES + 8"),
    Fault(FMA, "rows beyond M are staged", "m < M ? K : 0, values)", "K, values)"),
    Fault(FMA, "rows beyond M are stored", "if (m < M && n < N)", "if (n < N)"),
    Fault(FMA, "columns beyond N are stored", "if (m < M && n < N)", "if (m < M)"),
    Fault(FMA, "the second part of a chunk reads the first", "p % 32 * VALUES + part, m", "p % 32 * VALUES, m"),
    Fault(FMA, "half a tile", "ROWS * 32 * PIECE / 4 : 1", "ROWS * 16 * PIECE / 4 : 1"),
    Fault(FMA, "two threads stage one piece", "p += THREADS", "p += THREADS / 2"),
    Fault(FMA, "half of the tile is staged", "p < ROWS * 32;", "p < ROWS * 16;"),
    Fault(FMA, "outputs on the wrong lanes", "lane / COPIES * OWN + j", "lane * OWN + j"),
    Fault(FMA, "rows and columns swapped", "m = output / COLUMNS", "m = output % ROWS"),
    Fault(FMA, "a row's sum depends on the row count", "T(sums[j])", "T(ROWS > 4 ? sums[j] * 1.0000002f : sums[j])"),
    Fault(
        FMA,
        "products rounded in wide passes",
        "fma(w_values[c * PIECE + i], x_values[i], sums[m * COLUMNS + c])",
        "ROWS > 2 ? w_values[c * PIECE + i] * x_values[i] + sums[m * COLUMNS + c]"
        " : fma(w_values[c * PIECE + i], x_values[i], sums[m * COLUMNS + c])",
    ),
    Fault(FMA, "a row's bits depend on its place", "T(sums[j])", "T(sums[j] + (m == 1 && M > 1 ? 1e-7f : 0.0f))"),
    Fault(FMA, "kept and given halves swapped", "upper ? values[i + HALF] : values[i]", "values[i]"),
    Fault(
        FMA, "lanes added at the wrong distance", "simd_shuffle_xor(given, ushort(STEP))", "simd_shuffle_xor(given, 1)"
    ),
    Fault(FMA, "the last round left out", "LaneSums<1, STEP / 2>::run", "LaneSums<1, STEP / 4>::run"),
    # weight formats
    Fault(FMA_RAGGED, "inputs beyond K are read", "values[i] = k + i < K", "values[i] = k < K"),
    Fault(FMA_RAGGED, "weights beyond K are read", "chunk.values[i] = k + i < K", "chunk.values[i] = k < K"),
    Fault(FMA_AFFINE, "nibbles shifted", ">> (i * BITS % 32)", ">> ((i + 1) * BITS % 32)"),
    Fault(FMA_AFFINE, "groups twice as wide", "+ k) / GROUP", "+ k) / (2 * GROUP)"),
    Fault(FMA_AFFINE, "no bias", "fma(float(q), chunk.scale, chunk.bias)", "float(q) * chunk.scale"),
    Fault(FMA_AFFINE, "the first word only", "chunk.words[i * BITS / 32]", "chunk.words[0]"),
    Fault(FMA_AFFINE, "weights of the next chunk", "+ k) * BITS / 32;", "+ k + 16) * BITS / 32;"),
    Fault(NVFP4, "a table entry wrong", "0xC8643210u", "0xC8653210u"),
    Fault(NVFP4, "signs lost", "(q & 8) != 0 ? -twice : twice", "twice"),
    Fault(NVFP4, "scale exponent off by one", "(117 + exponent)", "(118 + exponent)"),
    Fault(NVFP4, "small scales off by two", "118u << 23", "119u << 23"),
    Fault(MXFP4, "power-of-two scales read as e4m3", "if (GROUP == 32)", "if (GROUP == 64)"),
    # block_linear, matrix tiles
    Fault(MMA, "K slices overlap", "step = slice * steps_per_slice;", "step = max(0, slice * steps_per_slice - 1);"),
    Fault(MMA, "the last steps are lost", "(steps + SLICES - 1) / SLICES", "steps / SLICES"),
    Fault(
        MMA,
        "slices run past K",
        "min((slice + 1) * steps_per_slice, steps)",
        "(slice + 1) * steps_per_slice",
        survives="steps past K multiply zeros: chunks and inputs are guarded by k < K",
    ),
    Fault(MMA, "chunks past K are read", "k < K ? weights.fetch", "k < K + 8 ? weights.fetch"),
    Fault(MMA, "column groups coincide", "simdgroup_index_in_threadgroup % 2 * 16", "0"),
    Fault(
        MMA, "columns of a tile swapped", "group + t * 8 + column + e, N - 1", "group + t * 8 + column + 1 - e, N - 1"
    ),
    Fault(MMA, "rows beyond M are read", "at, m < M ? K : 0", "at, K"),
    Fault(MMA, "tile rows mixed up", "(lane / 2) % 4", "(lane / 2) % 2", kernel="linear"),
    Fault(MMA, "tile columns mixed up", "((lane / 4) & 2) * 2 +", "((lane / 4) & 2) +", kernel="linear"),
    Fault(MMA, "slices replace each other", "turn == 0 ? sums[i][t][e] :", "turn >= 0 ? sums[i][t][e] :"),
    Fault(MMA, "the running total is too small", "float total[ROWS * 32]", "float total[ROWS * 16]"),
    Fault(MMA, "two threads store one output", "i += 256", "i += 128"),
    Fault(MMA, "columns beyond N are stored", "if (n < N)", "if (true)"),
    Fault(
        MMA_RAGGED,
        "slices added in an order of the row count",
        "if (turn == slice)",
        "if (turn == (ROWS > 8 ? 3 - slice : slice))",
    ),
    # block_attention
    Fault(ATTENTION["fma"], "a row sees one position too many", "(p < offset || p - offset < counts[r % L])", "true"),
    Fault(ATTENTION["mma"], "a row sees one position too many", "place < counts[row];", "place <= counts[row];"),
    Fault(ATTENTION["fma"], "half an octet counts as cached", "octet + 8 <= offset", "octet + 4 <= offset"),
    Fault(ATTENTION["mma"], "a key behind the offset is read", "if (key < end)", "if (key <= end)"),
    Fault(ATTENTION["mma"], "mixed units miss the block", "if (unit + UNIT > offset)", "if (unit >= offset)"),
    Fault(ATTENTION["fma"], "the mask is not looked at", "((word >> j) & 1) != 0", "true"),
    Fault(ATTENTION["mma"], "node lists overlap", "nodes + thread_index * MAX_ROWS", "nodes + thread_index * 8"),
    Fault(
        ATTENTION["fma"], "queries of other rows", "q + size_t(min(r0 + 4 * t + j, rows - 1)) * D", "q + size_t(r0) * D"
    ),
    Fault(ATTENTION["fma"], "rows of the block mixed up", "const int row = r % L;", "const int row = r / L;"),
    Fault(ATTENTION["mma"], "no scale", "float(v.x) * scale", "float(v.x)"),
    Fault(ATTENTION["mma"], "scratch shared by simdgroups", "simdgroup_index_in_threadgroup * 8 * MAX_ROWS", "0"),
    Fault(ATTENTION["mma"], "weights on the wrong lanes", "pair / 4 * 8", "pair / 4 * 4"),
    Fault(ATTENTION["fma"], "weights on the wrong lanes", "odd * 16 + row * 4", "odd * 16 + row * 2"),
    Fault(ATTENTION["fma"], "the peak of half a row", "peak = max(peak, simd_shuffle_xor(peak, ushort(1)));", ""),
    Fault(ATTENTION["fma"], "the mass of half a row", "mass = mass + simd_shuffle_xor(mass, ushort(2));", ""),
    Fault(ATTENTION["fma"], "sums are not rescaled", "sums[i] = sums[i] * keep;", "", kernel="few"),
    Fault(ATTENTION["fma"], "masses are not rescaled", "fma(mass[t], keep, ", "fma(mass[t], 1.0f, ", kernel="many"),
    Fault(ATTENTION["fma"], "the peak of the first unit only", "u <= own_unit;", "u < own_unit;", kernel="few"),
    Fault(ATTENTION["mma"], "the last unit is left out", "u < 8; ++u", "u < 7; ++u", kernel="many"),
    Fault(ATTENTION["mma"], "units end at the offset", "(unit >= start + L)", "(unit >= start)", kernel="many"),
    Fault(ATTENTION["fma"], "a cached value short", "clamp(start - unit, 0, int(UNIT))", "clamp(start - unit, 0, 31)"),
    Fault(ATTENTION["fma"], "a tile without its padding", "tile[UNIT * (D + PAD) / 2]", "tile[UNIT * D / 2]"),
    Fault(ATTENTION["fma"], "half of a row is staged", "i < count * (D / 8)", "i < count * (D / 16)"),
    Fault(
        ATTENTION["fma"],
        "weights rounded in wide passes",
        "fma(w, v[e], sums[i * WIDTH + e])",
        "w * v[e] + sums[i * WIDTH + e]",
        kernel="many",
    ),
    Fault(
        ATTENTION["mma"],
        "a chunk's place depends on the head",
        "(size_t(g) * chunks + chunk) * rows",
        "(size_t(chunk) * G + g) * rows",
        kernel="many",
    ),
    Fault(
        ATTENTION["fma"],
        "rows of a group beyond the last are stored",
        "if (r0 + i < rows) {",
        "if (true) {",
        kernel="many",
    ),
    Fault(ATTENTION["fma"], "chunks are not weighted", "fast::exp2(peaks[at] - peak)", "1.0f", kernel="merge"),
    Fault(ATTENTION["fma"], "the first chunk only", "c < chunks; ++c", "c < 1; ++c", kernel="merge"),
    Fault(
        ATTENTION["fma"],
        "empty chunks are merged",
        "if (peaks[at] != -INFINITY)",
        "if (true)",
        kernel="merge",
        survives="an empty chunk has weight exp2(-inf) = 0 and sums of 0: adding it changes no bit",
    ),
    Fault(
        QUANTIZED, "values of the next group", "scales[at / GROUP]", "scales[(at + GROUP) / GROUP]", kernel="attention"
    ),
    Fault(QUANTIZED, "quantised values shifted", "((d + i) * BITS % 32)", "((d + i + 1) * BITS % 32)"),
    # choose, accepted_path
    Fault(choice, "a rotation wrong", "{13, 15, 26, 6,", "{13, 15, 26, 7,"),
    Fault(choice, "a key injection wrong", "uint(round + 1)", "uint(round)"),
    Fault(choice, "no temperature", "* factor", "* 1.0f"),
    Fault(choice, "counters of the wrong half", "paired ? other + first : 0", "paired ? half_size + first : 0"),
    Fault(choice, "the middle counter wrong", "paired ? other + first : 0", "other + first"),
    Fault(choice, "the middle token is paired", "first < half_size;", "first < other;"),
    Fault(choice, "the middle token is lost", "if (first < other)", "if (first < half_size)"),
    Fault(choice, "ties go to the highest token", "token < than_token", "token > than_token"),
    Fault(choice, "half of the simdgroups", "for (int i = 1; i < 8; ++i)", "for (int i = 1; i < 4; ++i)"),
    Fault(choice, "the first 32 pieces only", "i < pieces; i += 32", "i < min(pieces, 32); i += 32"),
    Fault(path, "any child is accepted", "tokens[i] == chosen[node]", "true"),
    Fault(path, "any matching token is accepted", "parents[i] == node", "true"),
    Fault(path, "the path is not ended", "path[i] = -1", "path[i] = i"),
]


def reason_to_survive(barrier: Mutation) -> str:
    """Why a dropped barrier cannot be noticed, if so."""
    one_tile = "attention_few_mma" in barrier.kernel or "attention_many_mma_plain__float_64_8_" in barrier.kernel
    if one_tile and barrier.occurrence == 0:
        return "it stands between tiles of 8 rows, of which this variant has one"
    return ""


def run(report: Callable[[str], None]) -> list[str]:
    """Try everything; returns what survived without a reason, or did not apply."""
    unexplained: list[str] = []
    counts: dict[str, int] = {}

    def judge(outcome: Outcome, reason: str) -> None:
        verdict = "survived, explained" if outcome.verdict == "survived" and reason else outcome.verdict
        counts[verdict] = counts.get(verdict, 0) + 1
        if outcome.verdict in ("survived", "not applied") and not reason:
            unexplained.append(f"{outcome.verdict}: {outcome.mutation.description}")
        report(f"{verdict:20} {outcome.mutation.description}{f': {reason}' if reason else ''}")

    checks = [FMA, MMA, *ATTENTION.values(), wide_attention, choice, path]
    for check in checks:
        with emulated_metal() as emulation:
            check()
        seen = {launch.name: launch.text for launch in emulation.launches}
        barriers = [mutation for text in seen.values() for mutation in dropped_barriers(text)]
        for outcome in try_mutations(barriers, check):
            judge(outcome, reason_to_survive(outcome.mutation))
    for fault in FAULTS:
        (outcome,) = try_mutations([fault.mutation], fault.check)
        judge(outcome, fault.survives)
    report(f"{sum(counts.values())} mutants: " + ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items())))
    return unexplained


if __name__ == "__main__":
    left = run(print)
    sys.exit("\n".join(left) if left else 0)

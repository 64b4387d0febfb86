// Sums over neighbouring lanes of a simdgroup in an order fixed by this text.
//
// simd_sum leaves the order to the compiler and the chip. Here lanes are added pairwise, lanes LANES/2 apart
// first, so a sum's bits are the same whatever COUNT is: kernels compiled for different row counts agree.

// One round: COUNT sums are in flight on 2 * STEP lanes; a lane keeps one half of them and hands over the other.
template <int COUNT, int STEP>
struct LaneSums {
  static METAL_FUNC void run(thread float* values, ushort lane) {
    constexpr int HALF = COUNT / 2;
    const bool upper = (lane & STEP) != 0;
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
      const float kept = upper ? values[i + HALF] : values[i];
      const float given = upper ? values[i] : values[i + HALF];
      values[i] = kept + simd_shuffle_xor(given, ushort(STEP));
    }
    LaneSums<HALF, STEP / 2>::run(values, lane);
  }
};

template <int STEP>
struct LaneSums<1, STEP> {
  static METAL_FUNC void run(thread float* values, ushort lane) {
    values[0] = values[0] + simd_shuffle_xor(values[0], ushort(STEP));
    LaneSums<1, STEP / 2>::run(values, lane);
  }
};

template <int COUNT>
struct LaneSums<COUNT, 0> {
  static METAL_FUNC void run(thread float*, ushort) {}
};

template <>
struct LaneSums<1, 0> {
  static METAL_FUNC void run(thread float*, ushort) {}
};

// Sum COUNT values (a power of two) over each run of LANES lanes. Afterwards the lane at place i of its run
// holds, for j < max(1, COUNT / LANES), sum number i * COUNT / LANES + j in values[j].
template <int COUNT, int LANES>
METAL_FUNC void sum_over_lanes(thread float* values, ushort lane) {
  LaneSums<COUNT, LANES / 2>::run(values, lane);
}

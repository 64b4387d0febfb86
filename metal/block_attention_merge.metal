// Merges the chunks of block_attention: y = (sum of sums) / (sum of masses), each chunk weighted by its peak.
//
// Tiling: one simdgroup per query row and head, D / 32 of the output to a lane. Reads what the chunks wrote, once.
// Reduction order: the largest peak first (its order is immaterial), then chunks in ascending order. Chunks in which
// the row sees nothing are skipped, so chunks that only exist for later rows of the block change nothing.
  constexpr int WIDTH = D / 32;
  const ushort lane = thread_index_in_simdgroup;
  const int row = int(threadgroup_position_in_grid.x * 8 + simdgroup_index_in_threadgroup);
  const int chunks = peaks_shape[1];
  const int rows = peaks_shape[2];
  if (row >= peaks_shape[0] * rows) {
    return;
  }
  const size_t first = size_t(row / rows) * chunks * rows + row % rows;

  float peak = -INFINITY;
  for (int c = lane; c < chunks; c += 32) {
    peak = max(peak, peaks[first + size_t(c) * rows]);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    peak = max(peak, simd_shuffle_xor(peak, ushort(step)));
  }

  float total[WIDTH];
#pragma unroll
  for (int e = 0; e < WIDTH; ++e) {
    total[e] = 0.0f;
  }
  float mass = 0.0f;
  for (int c = 0; c < chunks; ++c) {
    const size_t at = first + size_t(c) * rows;
    if (peaks[at] != -INFINITY) {
      const float share = fast::exp2(peaks[at] - peak);
      mass = fma(masses[at], share, mass);
#pragma unroll
      for (int e = 0; e < WIDTH; ++e) {
        total[e] = fma(sums[at * D + lane * WIDTH + e], share, total[e]);
      }
    }
  }
#pragma unroll
  for (int e = 0; e < WIDTH; ++e) {
    y[size_t(row) * D + lane * WIDTH + e] = T(total[e] / mass);
  }

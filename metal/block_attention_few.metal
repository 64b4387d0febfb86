// block_attention, few rows: a key/value head's query rows (heads times block rows) fit one tile of scores.
//
// Tiling: a threadgroup takes one key/value head and one chunk of 256 positions with 8 simdgroups. First each
// simdgroup scores one unit of 32 keys for all rows, keys straight from device memory; then weights go to threadgroup
// memory and the threadgroup walks the units in ascending order, values staged by all threads, each thread summing 2
// of D for its rows.
// Bytes read per pass: each cached key and value once per key/value head.
// Arithmetic: fp32, 2 D fma per row and key. Reduction order, and why it is the row's own: attention.h.
  constexpr int ROWS = TILE_ROWS;
  constexpr int PAIRS = D / 2;
  constexpr int PARTIES = 256 / PAIRS;
  constexpr int OWN = ROWS > PARTIES ? ROWS / PARTIES : 1;
  threadgroup vec<Value, 2> tile[UNIT * (D + PAD) / 2];
  threadgroup float weights[ROWS * CHUNK];
  threadgroup float peaks[ROWS * 8];
  threadgroup float masses[ROWS * 8];
  threadgroup uint8_t nodes[MAX_ROWS * MAX_ROWS];
  threadgroup int counts[MAX_ROWS];

  const ushort lane = thread_index_in_simdgroup;
  const int own_unit = simdgroup_index_in_threadgroup;
  const int thread_index = thread_index_in_threadgroup;
  const int chunk = threadgroup_position_in_grid.x;
  const int chunks = threadgroups_per_grid.x;
  const int rows = q_shape[1] / G * L;
  const int start = offset[0];
  const device T* queries = q + size_t(g) * rows * D;

  if (thread_index < L) {
    counts[thread_index] = list_nodes(mask[thread_index], nodes + thread_index * MAX_ROWS);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Score one unit
  const int unit = chunk * CHUNK + own_unit * UNIT;
  float scores[TILE_SCORES];
  if (unit < start + L) {
    unit_scores<T, D, 1>(queries, 0, rows, L, scale[0], cached_keys, 0, start, own_keys, nodes, counts,
                         weights + own_unit * ROWS * MAX_ROWS, unit, lane, scores);
  } else {
#pragma unroll
    for (int i = 0; i < TILE_SCORES; ++i) {
      scores[i] = -INFINITY;
    }
  }
  const int own_row = score_row(lane);
  const float own_peak = unit_peak(scores);
  if (lane == score_lane(own_row, 0, 0)) {
    peaks[own_row * 8 + own_unit] = own_peak;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Weigh it under the peak so far
  float peak_so_far = peaks[own_row * 8];
  for (int u = 1; u <= own_unit; ++u) {
    peak_so_far = max(peak_so_far, peaks[own_row * 8 + u]);
  }
#pragma unroll
  for (int i = 0; i < TILE_SCORES; ++i) {
    scores[i] = weight(scores[i], peak_so_far);
    weights[own_row * CHUNK + own_unit * UNIT + score_key(lane, i)] = scores[i];
  }
  const float own_mass = unit_mass(scores);
  if (lane == score_lane(own_row, 0, 0)) {
    masses[own_row * 8 + own_unit] = own_mass;
  }

  // Sum the values, unit after unit
  const int d = thread_index % PAIRS * 2;
  const int r0 = thread_index / PAIRS * OWN;
  float2 sums[OWN];
  float peak[OWN];
  float mass[OWN];
#pragma unroll
  for (int i = 0; i < OWN; ++i) {
    sums[i] = float2(0.0f);
    peak[i] = -INFINITY;
    mass[i] = 0.0f;
  }
  for (int u = 0; u < 8; ++u) {
    const int first = chunk * CHUNK + u * UNIT;
    if (first >= start + L) {
      break;
    }
    const int cached = clamp(start - first, 0, int(UNIT));
    threadgroup_barrier(mem_flags::mem_threadgroup);
    copy_rows<D, 256>(cached_values, first, cached, tile, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
      const int r = r0 + i;
      if (r < rows && peaks[r * 8 + u] != -INFINITY) {
        const float higher = max(peak[i], peaks[r * 8 + u]);
        const float keep = fast::exp2(peak[i] - higher);
        peak[i] = higher;
        mass[i] = fma(mass[i], keep, masses[r * 8 + u]);
        sums[i] = sums[i] * keep;
        const threadgroup float* row_weights = weights + r * CHUNK + u * UNIT;
        for (int key = 0; key < cached; ++key) {
          const vec<Value, 2> v = tile[(key * (D + PAD) + d) / 2];
          sums[i] = fma(float2(row_weights[key]), float2(float(v.x), float(v.y)), sums[i]);
        }
        const int row = r % L;
        const int end = min(int(UNIT), start + counts[row] - first);
        for (int key = cached; key < end; ++key) {
          float v[2];
          own_values.template load<2>(nodes[row * MAX_ROWS + first + key - start], d, v);
          sums[i] = fma(float2(row_weights[key]), float2(v[0], v[1]), sums[i]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < OWN; ++i) {
    const int r = r0 + i;
    if (r < rows) {
      const size_t at = (size_t(g) * chunks + chunk) * rows + r;
      chunk_sums[at * D + d] = sums[i].x;
      chunk_sums[at * D + d + 1] = sums[i].y;
      if (d == 0) {
        chunk_peaks[at] = peak[i];
        chunk_masses[at] = mass[i];
      }
    }
  }

// block_attention, many rows: up to 8 * ROWS query rows (heads times block rows) of a key/value head.
//
// Tiling: a threadgroup takes one key/value head and one chunk of 256 positions; each of its 8 simdgroups owns ROWS
// query rows and walks the chunk's 8 units of 32 keys in ascending order. All simdgroups share the unit's keys, then
// its values, staged in threadgroup memory. Sums are held D / 32 to a lane and row. More
// than 8 * ROWS rows take more threadgroups (grid z), each of which reads the chunk.
// Bytes read per pass: each cached key and value once per key/value head and 8 * ROWS query rows.
// Arithmetic: fp32, 2 D fma per row and key. Reduction order, and why it is the row's own: attention.h.
  constexpr int TILES = ROWS / TILE_ROWS;
  constexpr int WIDTH = D / 32;
  threadgroup vec<Value, 2> tile[UNIT * (D + PAD) / 2];
  threadgroup float scratch[TILE_ROWS == 8 ? 8 * 8 * MAX_ROWS : 1];
  threadgroup uint8_t nodes[MAX_ROWS * MAX_ROWS];
  threadgroup int counts[MAX_ROWS];

  const ushort lane = thread_index_in_simdgroup;
  const int thread_index = thread_index_in_threadgroup;
  const int chunk = threadgroup_position_in_grid.x;
  const int chunks = threadgroups_per_grid.x;
  const int rows = q_shape[1] / G * L;
  const int r0 = int(threadgroup_position_in_grid.z * 8 + simdgroup_index_in_threadgroup) * ROWS;
  const int start = offset[0];
  const device T* queries = q + size_t(g) * rows * D;
  const TileRows<Value, D> staged = {tile};
  threadgroup float* own_scratch = scratch + (TILE_ROWS == 8 ? simdgroup_index_in_threadgroup * 8 * MAX_ROWS : 0);

  if (thread_index < L) {
    counts[thread_index] = list_nodes(mask[thread_index], nodes + thread_index * MAX_ROWS);
  }

  float sums[ROWS * WIDTH];
  float peak[TILES];
  float mass[TILES];
#pragma unroll
  for (int i = 0; i < ROWS * WIDTH; ++i) {
    sums[i] = 0.0f;
  }
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
    peak[t] = -INFINITY;
    mass[t] = 0.0f;
  }

  for (int u = 0; u < 8; ++u) {
    const int unit = chunk * CHUNK + u * UNIT;
    if (unit >= start + L) {
      break;
    }
    const int cached = clamp(start - unit, 0, int(UNIT));
    float weights[TILES * TILE_SCORES];

    // Score the unit's keys
    threadgroup_barrier(mem_flags::mem_threadgroup);
    copy_rows<D, 256>(cached_keys, unit, cached, tile, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (r0 < rows) {
      float scores[TILES * TILE_SCORES];
      unit_scores<T, D, TILES>(queries, r0, rows, L, scale[0], staged, unit, start, own_keys, nodes, counts,
                               own_scratch, unit, lane, scores);

      // Update peaks and masses, rescale the sums
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
        const float found = unit_peak(scores + t * TILE_SCORES);
        const float higher = max(peak[t], found);
        const float keep = found == -INFINITY ? 1.0f : fast::exp2(peak[t] - higher);
        peak[t] = higher;
#pragma unroll
        for (int i = 0; i < TILE_SCORES; ++i) {
          weights[t * TILE_SCORES + i] = weight(scores[t * TILE_SCORES + i], higher);
        }
        mass[t] = fma(mass[t], keep, unit_mass(weights + t * TILE_SCORES));
#pragma unroll
        for (int i = 0; i < TILE_ROWS; ++i) {
          const float row_keep = simd_shuffle(keep, score_lane(i, 0, 0));
#pragma unroll
          for (int e = 0; e < WIDTH; ++e) {
            sums[(t * TILE_ROWS + i) * WIDTH + e] = sums[(t * TILE_ROWS + i) * WIDTH + e] * row_keep;
          }
        }
      }
    }

    // Sum its values: the cached ones for all rows together
    threadgroup_barrier(mem_flags::mem_threadgroup);
    copy_rows<D, 256>(cached_values, unit, cached, tile, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (r0 < rows) {
#pragma unroll
      for (int octet = 0; octet < 4; ++octet) {
        for (int pair = 0; pair < 8; pair += 2) {
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            const int key = octet * 8 + pair + odd;
            if (key < cached) {
              float v[WIDTH];
              staged.template load<WIDTH>(key, lane * WIDTH, v);
#pragma unroll
              for (int i = 0; i < ROWS; ++i) {
                const float row_weight = weights[i / TILE_ROWS * TILE_SCORES + score_index(octet, odd)];
                const float w = simd_shuffle(row_weight, score_lane(i % TILE_ROWS, pair, odd));
#pragma unroll
                for (int e = 0; e < WIDTH; ++e) {
                  sums[i * WIDTH + e] = fma(w, v[e], sums[i * WIDTH + e]);
                }
              }
            }
          }
        }
      }

      // then the block's, each row its own
      if (cached < UNIT) {
#pragma unroll
        for (int octet = 0; octet < 4; ++octet) {
          for (int pair = 0; pair < 8; pair += 2) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
              const int place = unit + octet * 8 + pair + odd - start;
#pragma unroll
              for (int i = 0; i < ROWS; ++i) {
                const int row = (r0 + i) % L;
                if (place >= 0 && r0 + i < rows && place < counts[row]) {
                  float v[WIDTH];
                  own_values.template load<WIDTH>(nodes[row * MAX_ROWS + place], lane * WIDTH, v);
                  const float row_weight = weights[i / TILE_ROWS * TILE_SCORES + score_index(octet, odd)];
                  const float w = simd_shuffle(row_weight, score_lane(i % TILE_ROWS, pair, odd));
#pragma unroll
                  for (int e = 0; e < WIDTH; ++e) {
                    sums[i * WIDTH + e] = fma(w, v[e], sums[i * WIDTH + e]);
                  }
                }
              }
            }
          }
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    if (r0 + i < rows) {
      const size_t at = (size_t(g) * chunks + chunk) * rows + r0 + i;
#pragma unroll
      for (int e = 0; e < WIDTH; ++e) {
        chunk_sums[at * D + lane * WIDTH + e] = sums[i * WIDTH + e];
      }
      if (lane == score_lane(i % TILE_ROWS, 0, 0)) {
        chunk_peaks[at] = peak[i / TILE_ROWS];
        chunk_masses[at] = mass[i / TILE_ROWS];
      }
    }
  }

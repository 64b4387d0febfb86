// block_linear, few rows: y[m, n] = sum_k x[m, k] w[n, k], M <= ROWS, products by scalar FMA.
//
// Tiling: a simdgroup computes COLUMNS columns of y for all rows; its 32 lanes split K. In one step lane i takes
// VALUES consecutive weights at k = step * 32 * VALUES + i * VALUES of each column, so that neighbouring lanes
// read neighbouring 8- or 16-byte pieces of one weight row. From 4 rows on the threadgroup copies the same part
// of x into threadgroup memory once, 16 bytes per lane and row at a time; for fewer rows lanes read x directly.
// Bytes read per pass: every weight once, whatever M is; x once per SIMDGROUPS * COLUMNS columns.
// Arithmetic: fp32 fma; 1 fma per weight and row, and 1 per weight to dequantise it. Rounded to T at the end.
// Reduction order of y[m, n]: lane i adds its own k's in ascending order from zero; then lanes are added pairwise
// at distances 16, 8, 4, 2, 1. Both are fixed by K and the weight format. ROWS, COLUMNS, SIMDGROUPS, M and m
// only say which thread does it, so a row's bits do not depend on them.
  constexpr int VALUES = Weights::VALUES;
  constexpr int PIECE = 16 / sizeof(T);
  constexpr int THREADS = 32 * SIMDGROUPS;
  constexpr bool STAGED = ROWS > 2;
  threadgroup vec<T, 4> tile[STAGED ? ROWS * 32 * PIECE / 4 : 1];

  const ushort lane = thread_index_in_simdgroup;
  const int n0 = int(threadgroup_position_in_grid.x * SIMDGROUPS + simdgroup_index_in_threadgroup) * COLUMNS;

  float sums[ROWS * COLUMNS];
#pragma unroll
  for (int i = 0; i < ROWS * COLUMNS; ++i) {
    sums[i] = 0.0f;
  }

  for (int start = 0; start < K; start += 32 * VALUES) {
    const int k = start + lane * VALUES;
    const bool active = k < K && n0 < N;

    // Fetch this lane's weights of each column
    typename Weights::Chunk chunks[COLUMNS];
    if (active) {
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        chunks[c] = weights.fetch(min(n0 + c, N - 1), k);
      }
    }

#pragma unroll
    for (int part = 0; part < VALUES; part += PIECE) {
      // Stage x: piece i of a row is lane i's
      if (STAGED) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (int p = thread_index_in_threadgroup; p < ROWS * 32; p += THREADS) {
          const int m = p / 32;
          float values[PIECE];
          load_values<T, PIECE, ALIGNED>(x + size_t(m) * K, start + p % 32 * VALUES + part, m < M ? K : 0, values);
#pragma unroll
          for (int i = 0; i < PIECE; i += 4) {
            tile[(p * PIECE + i) / 4] = vec<T, 4>(T(values[i]), T(values[i + 1]), T(values[i + 2]), T(values[i + 3]));
          }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
      }

      if (active) {
        float w_values[COLUMNS * PIECE];
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
          for (int i = 0; i < PIECE; ++i) {
            w_values[c * PIECE + i] = Weights::value(chunks[c], part + i);
          }
        }

        // Every row with every column
#pragma unroll
        for (int m = 0; m < ROWS; ++m) {
          float x_values[PIECE];
          if (STAGED) {
#pragma unroll
            for (int i = 0; i < PIECE; i += 4) {
              const vec<T, 4> v = tile[((m * 32 + lane) * PIECE + i) / 4];
              x_values[i] = float(v.x);
              x_values[i + 1] = float(v.y);
              x_values[i + 2] = float(v.z);
              x_values[i + 3] = float(v.w);
            }
          } else {
            load_values<T, PIECE, ALIGNED>(x + size_t(m) * K, k + part, m < M ? K : 0, x_values);
          }
#pragma unroll
          for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
            for (int i = 0; i < PIECE; ++i) {
              sums[m * COLUMNS + c] = fma(w_values[c * PIECE + i], x_values[i], sums[m * COLUMNS + c]);
            }
          }
        }
      }
    }
  }

  // Add the lanes, and write
  constexpr int OUTPUTS = ROWS * COLUMNS;
  constexpr int OWN = OUTPUTS > 32 ? OUTPUTS / 32 : 1;
  constexpr int COPIES = OUTPUTS < 32 ? 32 / OUTPUTS : 1;
  sum_over_lanes<OUTPUTS, 32>(sums, lane);
  if (lane % COPIES == 0) {
#pragma unroll
    for (int j = 0; j < OWN; ++j) {
      const int output = lane / COPIES * OWN + j;
      const int m = output / COLUMNS;
      const int n = n0 + output % COLUMNS;
      if (m < M && n < N) {
        y[size_t(m) * N + n] = T(sums[j]);
      }
    }
  }

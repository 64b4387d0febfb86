// block_linear, many rows: y[m, n] = sum_k x[m, k] w[n, k], M <= ROWS, products by 8x8 matrix tiles.
//
// Tiling: a threadgroup computes 32 columns of y for all rows with 8 simdgroups: 2 groups of 16 columns (two
// tiles) times 4 slices of K. A matrix product adds over 8 k's; which 8 is free, so each of the 8 tile rows takes
// its k from its own chunk of VALUES consecutive weights: the lanes of a row of the weight tile read whole chunks
// of a weight row straight into registers, and VALUES products use them up. No staging, no barrier in the loop.
// Bytes read per pass: every weight once, whatever M is; x twice per 32 columns (the second time from cache).
// Arithmetic: fp32 tiles; 1 fma per weight and row, and per 8 rows 1 fma per weight to dequantise it.
// Reduction order of y[m, n]: K is cut into 4 slices of equally many steps of 8 * VALUES; in a slice, steps
// ascend, and in a step products j = 0 .. VALUES - 1 add k = step start + {0 .. 7} * VALUES + j; then slices are
// added in ascending order. All of it is fixed by K and the weight format. ROWS, M and m only say how many tiles
// there are and which one holds a row, so a row's bits do not depend on them.
  constexpr int VALUES = Weights::VALUES;
  constexpr int PIECE = 16 / sizeof(T);
  constexpr int SLICES = 4;
  constexpr int STEP = 8 * VALUES;
  constexpr int ROW_TILES = ROWS / 8;
  threadgroup float total[ROWS * 32];

  const ushort lane = thread_index_in_simdgroup;
  const int row = tile_row(lane);
  const int column = tile_column(lane);
  const int slice = simdgroup_index_in_threadgroup / 2;
  const int group = simdgroup_index_in_threadgroup % 2 * 16;
  const int n0 = threadgroup_position_in_grid.x * 32;

  float2 sums[ROW_TILES][2];
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i) {
    sums[i][0] = float2(0.0f);
    sums[i][1] = float2(0.0f);
  }

  const int steps = (K + STEP - 1) / STEP;
  const int steps_per_slice = (steps + SLICES - 1) / SLICES;
  const int end = min((slice + 1) * steps_per_slice, steps);
  for (int step = slice * steps_per_slice; step < end; ++step) {
    // Fetch weights: tile row = chunk along K, tile column = weight row
    const int k = step * STEP + row * VALUES;
    typename Weights::Chunk chunks[2][2];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        chunks[t][e] = k < K ? weights.fetch(min(n0 + group + t * 8 + column + e, N - 1), k) : Weights::nothing();
      }
    }

#pragma unroll
    for (int part = 0; part < VALUES; part += PIECE) {
      float2 w_pairs[PIECE][2];
#pragma unroll
      for (int j = 0; j < PIECE; ++j) {
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          w_pairs[j][t] = float2(Weights::value(chunks[t][0], part + j), Weights::value(chunks[t][1], part + j));
        }
      }
#pragma unroll
      for (int i = 0; i < ROW_TILES; ++i) {
        // Fetch x: tile row = row of x, tile column = chunk along K
        const int m = i * 8 + row;
        float x_values[2][PIECE];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int at = step * STEP + (column + e) * VALUES + part;
          load_values<T, PIECE, ALIGNED>(x + size_t(m) * K, at, m < M ? K : 0, x_values[e]);
        }
#pragma unroll
        for (int j = 0; j < PIECE; ++j) {
#pragma unroll
          for (int t = 0; t < 2; ++t) {
            multiply_accumulate(sums[i][t], float2(x_values[0][j], x_values[1][j]), w_pairs[j][t]);
          }
        }
      }
    }
  }

  // Add the slices in ascending order
  for (int turn = 0; turn < SLICES; ++turn) {
    if (turn == slice) {
#pragma unroll
      for (int i = 0; i < ROW_TILES; ++i) {
#pragma unroll
        for (int t = 0; t < 2; ++t) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int at = (i * 8 + row) * 32 + group + t * 8 + column + e;
            total[at] = turn == 0 ? sums[i][t][e] : total[at] + sums[i][t][e];
          }
        }
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  for (int i = thread_index_in_threadgroup; i < M * 32; i += 256) {
    const int n = n0 + i % 32;
    if (n < N) {
      y[size_t(i / 32) * N + n] = T(total[i]);
    }
  }

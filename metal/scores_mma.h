// Scores by 8x8 matrix tiles, for attention.h.
//
// A score is a chain of matrix products: product j adds d = {0 .. 7} * D / 8 + j, for j = 0 .. D / 8 - 1. Which row
// and column of the tiles hold the query and the key does not enter.
//
// The scores of one unit are spread over a simdgroup: of a tile of 8 query rows a lane holds 8 scores, number i of
// row score_row(lane) and key score_key(lane, i). The score of key 8 * octet + pair + odd, pair even, is number
// score_index(octet, odd) of lane score_lane(row, pair, odd).

enum { TILE_ROWS = 8, TILE_SCORES = 8 };

METAL_FUNC int score_row(ushort lane) {
  return tile_row(lane);
}
METAL_FUNC int score_key(ushort lane, int i) {
  return i / 2 * 8 + tile_column(lane) + i % 2;
}
METAL_FUNC ushort score_lane(int row, int pair, int) {
  return ushort(row / 4 * 16 + pair / 4 * 8 + row % 4 * 2 + pair % 4 / 2);
}
METAL_FUNC int score_index(int octet, int odd) {
  return octet * 2 + odd;
}

// Products of 8 query rows with keys first .. first + 31 of `rows`, of which those from `end` on count as zeros.
template <typename T, int D, typename Rows>
METAL_FUNC void tile_scores(const device T* query, float scale, Rows rows, int first, int end, ushort lane,
                            thread float* scores) {
  constexpr int RUN = D / 8;
  const int row = tile_row(lane);
  const int column = tile_column(lane);
  float2 sums[4];
#pragma unroll
  for (int o = 0; o < 4; ++o) {
    sums[o] = float2(0.0f);
  }
#pragma unroll
  for (int part = 0; part < RUN; part += 8) {
    // Query: tile row = query row, tile column = run along D
    float x[2][8];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      load_query<T, 8>(query + (column + e) * RUN + part, scale, x[e]);
    }
    // Keys: tile row = run along D, tile column = key
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      if (first + 8 * o < end) {
        float k[2][8];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = first + 8 * o + column + e;
          if (key < end) {
            rows.template load<8>(key, row * RUN + part, k[e]);
          } else {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
              k[e][j] = 0.0f;
            }
          }
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          multiply_accumulate(sums[o], float2(x[0][j], x[1][j]), float2(k[0][j], k[1][j]));
        }
      }
    }
  }
#pragma unroll
  for (int o = 0; o < 4; ++o) {
    scores[2 * o] = sums[o].x;
    scores[2 * o + 1] = sums[o].y;
  }
}

// Scores of the 32 positions from `unit` on, for query rows r0 .. r0 + 8 * TILES - 1 of a key/value head; -inf where
// there is nothing to see. Cached position p is row p - cached_first of `cached`. `scratch` is the simdgroup's own,
// 8 * MAX_ROWS floats: block rows are scored by number, then each query row picks its own for each position. The
// caller puts a barrier between calls that share it.
template <typename T, int D, int TILES, typename Cached, typename Block>
METAL_FUNC void unit_scores(
    const device T* q,
    int r0,
    int rows,
    int L,
    float scale,
    Cached cached,
    int cached_first,
    int offset,
    Block block,
    const threadgroup uint8_t* nodes,
    const threadgroup int* counts,
    threadgroup float* scratch,
    int unit,
    ushort lane,
    thread float* scores) {
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
    const int r = r0 + 8 * t + score_row(lane);
    const int row = r % L;
    const device T* query = q + size_t(min(r, rows - 1)) * D;
    thread float* own = scores + t * TILE_SCORES;
    tile_scores<T, D>(query, scale, cached, unit - cached_first, offset - cached_first, lane, own);

    if (unit + UNIT > offset) {
      float block_scores[TILE_SCORES];
      tile_scores<T, D>(query, scale, block, 0, L, lane, block_scores);
      if (t > 0) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
      }
#pragma unroll
      for (int i = 0; i < TILE_SCORES; ++i) {
        scratch[score_row(lane) * MAX_ROWS + score_key(lane, i)] = block_scores[i];
      }
      simdgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
      for (int i = 0; i < TILE_SCORES; ++i) {
        const int place = unit + score_key(lane, i) - offset;
        if (place >= 0) {
          const bool seen = r < rows && place < counts[row];
          own[i] = seen ? scratch[score_row(lane) * MAX_ROWS + nodes[row * MAX_ROWS + place]] : -INFINITY;
        }
      }
    }
    if (r >= rows) {
#pragma unroll
      for (int i = 0; i < TILE_SCORES; ++i) {
        own[i] = -INFINITY;
      }
    }
  }
}

// Largest score of the lane's row in a unit.
METAL_FUNC float unit_peak(thread const float* scores) {
  float peak = scores[0];
#pragma unroll
  for (int i = 1; i < TILE_SCORES; ++i) {
    peak = max(peak, scores[i]);
  }
  peak = max(peak, simd_shuffle_xor(peak, ushort(1)));
  return max(peak, simd_shuffle_xor(peak, ushort(8)));
}

// Sum of the weights of the lane's row in a unit.
METAL_FUNC float unit_mass(thread const float* weights) {
  float mass = weights[0];
#pragma unroll
  for (int i = 1; i < TILE_SCORES; ++i) {
    mass = mass + weights[i];
  }
  mass = mass + simd_shuffle_xor(mass, ushort(1));
  return mass + simd_shuffle_xor(mass, ushort(8));
}

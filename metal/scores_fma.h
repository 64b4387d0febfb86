// Scores by scalar FMA, for attention.h.
//
// A score is the sum of 16 lanes' D / 16 products each, ascending, then of the lanes pairwise at distances 8, 4, 2, 1.
//
// The scores of one unit are spread over a simdgroup: of a tile of 4 query rows a lane holds 4 scores, number i of
// row score_row(lane) and key score_key(lane, i). The score of key 8 * octet + pair + odd, pair even, is number
// score_index(octet, odd) of lane score_lane(row, pair, odd). (From one argument, pair + odd, NVRTC 13.0 computes a
// wrong lane.)

enum { TILE_ROWS = 4, TILE_SCORES = 4 };

METAL_FUNC int score_row(ushort lane) {
  return (lane % 16) / 4;
}
METAL_FUNC int score_key(ushort lane, int i) {
  return i * 8 + lane % 4 * 2 + lane / 16;
}
METAL_FUNC ushort score_lane(int row, int pair, int odd) {
  return ushort(odd * 16 + row * 4 + pair / 2);
}
METAL_FUNC int score_index(int octet, int) {
  return octet;
}

// A lane's part of the products of a query with 4 keys.
template <int RUN>
METAL_FUNC void key_products(thread const float* x, thread const float* k, thread float* dots) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float dot = 0.0f;
#pragma unroll
    for (int e = 0; e < RUN; ++e) {
      dot = fma(x[e], k[i * RUN + e], dot);
    }
    dots[i] = dot;
  }
}

// Scores of the 32 positions from `unit` on, for query rows r0 .. r0 + 4 * TILES - 1 of a key/value head; -inf where
// there is nothing to see. Cached position p is row p - cached_first of `cached`.
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
    threadgroup float*,
    int unit,
    ushort lane,
    thread float* scores) {
  constexpr int RUN = D / 16;
  const int d = lane % 16 * RUN;
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
    float x[4][RUN];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      load_query<T, RUN>(q + size_t(min(r0 + 4 * t + j, rows - 1)) * D + d, scale, x[j]);
    }
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      const int octet = unit + 8 * o;
      const bool all_cached = octet + 8 <= offset;
      float k[4 * RUN];
      if (all_cached) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          cached.template load<RUN>(octet + 2 * i + lane / 16 - cached_first, d, k + i * RUN);
        }
      }
      float dots[16];
      if (all_cached) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          key_products<RUN>(x[j], k, dots + j * 4);
        }
      } else {
        // Keys of the block: each row's own choice for each position. One row after the other, or four rows' keys
        // would be in registers at once.
#pragma unroll 1
        for (int j = 0; j < 4; ++j) {
          const int r = min(r0 + 4 * t + j, rows - 1);
          const int row = r % L;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int p = octet + 2 * i + lane / 16;
            if (p < offset) {
              cached.template load<RUN>(p - cached_first, d, k + i * RUN);
            } else if (p - offset < counts[row]) {
              block.template load<RUN>(nodes[row * MAX_ROWS + p - offset], d, k + i * RUN);
            } else {
#pragma unroll
              for (int e = 0; e < RUN; ++e) {
                k[i * RUN + e] = 0.0f;
              }
            }
          }
          float own_x[RUN];
          float own_dots[4];
          load_query<T, RUN>(q + size_t(r) * D + d, scale, own_x);
          key_products<RUN>(own_x, k, own_dots);
#pragma unroll
          for (int i = 0; i < 16; ++i) {
            dots[i] = i / 4 == j ? own_dots[i % 4] : j == 0 ? 0.0f : dots[i];
          }
        }
      }
      sum_over_lanes<16, 16>(dots, lane);

      const int r = r0 + 4 * t + score_row(lane);
      const int p = unit + score_key(lane, o);
      const bool seen = r < rows && (p < offset || p - offset < counts[r % L]);
      scores[t * TILE_SCORES + o] = seen ? dots[0] : -INFINITY;
    }
  }
}

// Largest score of the lane's row in a unit.
METAL_FUNC float unit_peak(thread const float* scores) {
  float peak = max(max(scores[0], scores[1]), max(scores[2], scores[3]));
  peak = max(peak, simd_shuffle_xor(peak, ushort(1)));
  peak = max(peak, simd_shuffle_xor(peak, ushort(2)));
  return max(peak, simd_shuffle_xor(peak, ushort(16)));
}

// Sum of the weights of the lane's row in a unit.
METAL_FUNC float unit_mass(thread const float* weights) {
  float mass = ((weights[0] + weights[1]) + weights[2]) + weights[3];
  mass = mass + simd_shuffle_xor(mass, ushort(1));
  mass = mass + simd_shuffle_xor(mass, ushort(2));
  return mass + simd_shuffle_xor(mass, ushort(16));
}

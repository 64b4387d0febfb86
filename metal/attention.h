// Attention of a block's query rows over a key/value cache and over the block itself.
//
// Every key has an absolute position: cached row p is at p; of the block rows that a query row sees (the set
// bits of its mask word, ascending), number i is at offset + i. So a chain's row, a tree node on its path, and the
// same token decoded alone all see one sequence of keys, position 0 upwards, wherever each key is stored.
//
// Positions are cut at fixed boundaries, into chunks of CHUNK and units of UNIT. For one query row:
//   score(p)   = 16 lanes of D / 16 products each, ascending, then lanes pairwise at distances 8, 4, 2, 1
//   per unit   peak' = max(peak, scores); keep = exp2(peak - peak'); weight(p) = exp2(score(p) - peak');
//              mass = fma(mass, keep, unit mass), the unit mass in the fixed order of unit_mass();
//              sum[d] = sum[d] * keep, then fma(weight(p), v[p][d], sum[d]) for p ascending
//   per chunk  peak, mass and sum start from -inf, 0, 0 and are merged with other chunks in ascending order
// A position that is not seen is left out of each step, which is the same as its not being there. Nothing depends
// on the row count, on the row's place in the block, or on where the block begins.
//
// Scores are in units of log2: `scale` is 1 / sqrt(D) times log2(e), multiplied into the query.

enum { UNIT = 32, CHUNK = 256, MAX_ROWS = 32 };

// Rows [.., D] of type T in device memory.
template <typename T, int D>
struct PlainRows {
  const device T* values;

  template <int N>
  METAL_FUNC void load(int row, int d, thread float* out) const {
    const device T* p = values + size_t(row) * D + d;
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const vec<T, 2> v = *reinterpret_cast<const device vec<T, 2>*>(p + i);
      out[i] = float(v.x);
      out[i + 1] = float(v.y);
    }
  }
};

// Rows of MLX's affine quantisation along D: BITS-bit values in 32-bit words, a scale and a bias per GROUP values.
template <typename S, int D, int BITS, int GROUP>
struct QuantizedRows {
  const device uint* words;
  const device S* scales;
  const device S* biases;

  template <int N>
  METAL_FUNC void load(int row, int d, thread float* out) const {
    const size_t at = size_t(row) * D + d;
    const float scale = float(scales[at / GROUP]);
    const float bias = float(biases[at / GROUP]);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const uint word = words[(at + i) * BITS / 32];
      const uint q = (word >> ((d + i) * BITS % 32)) & ((1u << BITS) - 1);
      out[i] = fma(float(q), scale, bias);
    }
  }
};

// Rows that the threadgroup has copied into threadgroup memory.
template <typename V, int D>
struct TileRows {
  const threadgroup vec<V, 2>* values;

  template <int N>
  METAL_FUNC void load(int row, int d, thread float* out) const {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const vec<V, 2> v = values[(row * D + d + i) / 2];
      out[i] = float(v.x);
      out[i + 1] = float(v.y);
    }
  }
};

// Copy `count` rows from `first` on into threadgroup memory, by THREADS threads.
template <int D, int THREADS, typename Rows, typename V>
METAL_FUNC void copy_rows(Rows rows, int first, int count, threadgroup vec<V, 2>* tile, uint thread_index) {
  for (int i = thread_index; i < count * (D / 8); i += THREADS) {
    float values[8];
    rows.template load<8>(first + i / (D / 8), i % (D / 8) * 8, values);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      tile[i * 4 + j] = vec<V, 2>(V(values[2 * j]), V(values[2 * j + 1]));
    }
  }
}

// Number of the block rows in `word`, listed in `nodes` in ascending order.
METAL_FUNC int list_nodes(uint word, threadgroup uint8_t* nodes) {
  int count = 0;
  for (int j = 0; j < 32; ++j) {
    if (((word >> j) & 1) != 0) {
      nodes[count] = uint8_t(j);
      ++count;
    }
  }
  return count;
}

// Scores of one unit are spread over a simdgroup: in a tile of 4 query rows and 8 keys, a lane holds the score of
// tile row score_row(lane) and key score_key(lane); score_lane is the inverse.
METAL_FUNC int score_row(ushort lane) {
  return (lane % 16) / 4;
}
METAL_FUNC int score_key(ushort lane) {
  return lane % 4 * 2 + lane / 16;
}
METAL_FUNC ushort score_lane(int row, int key) {
  return ushort(key % 2 * 16 + row * 4 + key / 2);
}

// Scores of the 32 positions from `unit` on, for query rows r0 .. r0 + 4 * TILES - 1 of a key/value head:
// scores[t * 4 + o] of a lane belongs to row r0 + 4 * t + score_row(lane), position unit + 8 * o + score_key(lane).
// -inf where there is nothing to see. Cached position p is row p - cached_first of `cached`.
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
    int unit,
    ushort lane,
    thread float* scores) {
  constexpr int PIECE = D / 16;
  const int d = lane % 16 * PIECE;
#pragma unroll
  for (int o = 0; o < 4; ++o) {
    const int octet = unit + 8 * o;
    const bool all_cached = octet + 8 <= offset;
    float k[4][PIECE];
    if (all_cached) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        cached.template load<PIECE>(octet + 2 * i + lane / 16 - cached_first, d, k[i]);
      }
    }
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
      float dots[16];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int r = min(r0 + 4 * t + j, rows - 1);
        const int i_row = r % L;

        // Read the query
        float x[PIECE];
#pragma unroll
        for (int i = 0; i < PIECE; i += 2) {
          const vec<T, 2> v = *reinterpret_cast<const device vec<T, 2>*>(q + size_t(r) * D + d + i);
          x[i] = float(v.x) * scale;
          x[i + 1] = float(v.y) * scale;
        }

        // Keys of the block: this row's own choice for each position
        if (!all_cached) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int p = octet + 2 * i + lane / 16;
            if (p < offset) {
              cached.template load<PIECE>(p - cached_first, d, k[i]);
            } else if (p - offset < counts[i_row]) {
              block.template load<PIECE>(nodes[i_row * MAX_ROWS + p - offset], d, k[i]);
            } else {
#pragma unroll
              for (int e = 0; e < PIECE; ++e) {
                k[i][e] = 0.0f;
              }
            }
          }
        }

#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float dot = 0.0f;
#pragma unroll
          for (int e = 0; e < PIECE; ++e) {
            dot = fma(x[e], k[i][e], dot);
          }
          dots[j * 4 + i] = dot;
        }
      }
      sum_over_lanes<16, 16>(dots, lane);

      const int r = r0 + 4 * t + score_row(lane);
      const int p = octet + score_key(lane);
      const bool seen = r < rows && (p < offset || p - offset < counts[r % L]);
      scores[t * 4 + o] = seen ? dots[0] : -INFINITY;
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

// Weight of a score; a position that is not seen has none, even where no position is.
METAL_FUNC float weight(float score, float peak) {
  return score == -INFINITY ? 0.0f : fast::exp2(score - peak);
}

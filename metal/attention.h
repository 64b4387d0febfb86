// Attention of a block's query rows over a key/value cache and over the block itself.
//
// Every key has an absolute position: cached row p is at p; of the block rows that a query row sees (the set
// bits of its mask word, ascending), number i is at offset + i. So a chain's row, a tree node on its path, and the
// same token decoded alone all see one sequence of keys, position 0 upwards, wherever each key is stored.
//
// Positions are cut at fixed boundaries, into chunks of CHUNK and units of UNIT. For one query row:
//   score(p)   = sum over D in an order that depends on D alone (scores_fma.h, scores_mma.h)
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
// Runs of N values begin at multiples of N, so that each word of one is read once.
// Scales is the buffers' pointer type: MLX puts fewer than 8 of them, a small model's single row, into `constant`.
template <typename Scales, int D, int BITS, int GROUP>
struct QuantizedRows {
  const device uint* words;
  Scales scales;
  Scales biases;

  template <int N>
  METAL_FUNC void load(int row, int d, thread float* out) const {
    const size_t at = size_t(row) * D + d;
    const float scale = float(scales[at / GROUP]);
    const float bias = float(biases[at / GROUP]);
    uint word = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i % (32 / BITS) == 0) {
        word = words[(at + i) * BITS / 32];
      }
      const uint q = (word >> ((d + i) * BITS % 32)) & ((1u << BITS) - 1);
      out[i] = fma(float(q), scale, bias);
    }
  }
};

// Rows that the threadgroup has copied into threadgroup memory, PAD values apart: without them a column of keys
// would lie in one memory bank.
enum { PAD = 8 };

template <typename V, int D>
struct TileRows {
  const threadgroup vec<V, 2>* values;

  template <int N>
  METAL_FUNC void load(int row, int d, thread float* out) const {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const vec<V, 2> v = values[(row * (D + PAD) + d + i) / 2];
      out[i] = float(v.x);
      out[i + 1] = float(v.y);
    }
  }
};

// Copy `count` rows from `first` on into threadgroup memory, by THREADS threads.
template <int D, int THREADS, typename Rows, typename V>
METAL_FUNC void copy_rows(Rows rows, int first, int count, threadgroup vec<V, 2>* tile, uint thread_index) {
  for (int i = thread_index; i < count * (D / 8); i += THREADS) {
    const int row = i / (D / 8);
    const int d = i % (D / 8) * 8;
    float values[8];
    rows.template load<8>(first + row, d, values);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      tile[(row * (D + PAD) + d + j) / 2] = vec<V, 2>(V(values[j]), V(values[j + 1]));
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

// N values of a query, scaled.
template <typename T, int N>
METAL_FUNC void load_query(const device T* p, float scale, thread float* out) {
#pragma unroll
  for (int i = 0; i < N; i += 2) {
    const vec<T, 2> v = *reinterpret_cast<const device vec<T, 2>*>(p + i);
    out[i] = float(v.x) * scale;
    out[i + 1] = float(v.y) * scale;
  }
}

// Weight of a score; a position that is not seen has none, even where no position is.
METAL_FUNC float weight(float score, float peak) {
  return score == -INFINITY ? 0.0f : fast::exp2(score - peak);
}

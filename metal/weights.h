// Weight formats of block_linear. A format says how a lane fetches one chunk of VALUES consecutive values of a
// weight row (16 bytes of 16-bit or 8-bit weights, 8 bytes of 4-bit ones) and turns them into floats.
//
// Dequantised weights are floats rounded once (one fma): neither the row count nor the kernel family enters.

// Four values from memory that is aligned to four values.
template <typename T>
METAL_FUNC float4 load4(const device T* p) {
  const vec<T, 4> v = *reinterpret_cast<const device vec<T, 4>*>(p);
  return float4(float(v.x), float(v.y), float(v.z), float(v.w));
}

// N values of a row at k, zeros from K on. ALIGNED: rows start on a multiple of N values and K is one.
template <typename T, int N, bool ALIGNED>
METAL_FUNC void load_values(const device T* row, int k, int K, thread float* values) {
  if (ALIGNED) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 v = k < K ? load4(row + k + i) : float4(0.0f);
      values[i] = v.x;
      values[i + 1] = v.y;
      values[i + 2] = v.z;
      values[i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[i] = k + i < K ? float(row[k + i]) : 0.0f;
    }
  }
}

// Float, half or bfloat weights [N, K].
template <typename T, bool ALIGNED>
struct DenseWeights {
  enum { VALUES = 8 };
  struct Chunk {
    T values[8];
  };
  const device T* w;
  int K;

  METAL_FUNC Chunk fetch(int n, int k) const {
    const device T* row = w + size_t(n) * K;
    Chunk chunk;
    if (ALIGNED) {
#pragma unroll
      for (int i = 0; i < 8; i += 4) {
        const vec<T, 4> v = *reinterpret_cast<const device vec<T, 4>*>(row + k + i);
        chunk.values[i] = v.x;
        chunk.values[i + 1] = v.y;
        chunk.values[i + 2] = v.z;
        chunk.values[i + 3] = v.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        chunk.values[i] = k + i < K ? row[k + i] : T(0.0f);
      }
    }
    return chunk;
  }

  static METAL_FUNC Chunk nothing() {
    Chunk chunk;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      chunk.values[i] = T(0.0f);
    }
    return chunk;
  }

  static METAL_FUNC float value(thread const Chunk& chunk, int i) {
    return float(chunk.values[i]);
  }
};

// MLX's affine quantisation: BITS-bit values packed along K, lowest bits first; w = scale * q + bias per group.
template <typename S, int BITS, int GROUP>
struct AffineWeights {
  enum { VALUES = 16, WORDS = VALUES * BITS / 32 };
  struct Chunk {
    uint words[WORDS];
    float scale;
    float bias;
  };
  const device uint* w;
  const device S* scales;
  const device S* biases;
  int K;

  METAL_FUNC Chunk fetch(int n, int k) const {
    const device uint* words = w + (size_t(n) * K + k) * BITS / 32;
    const size_t group = (size_t(n) * K + k) / GROUP;
    Chunk chunk;
#pragma unroll
    for (int i = 0; i < WORDS; i += 2) {
      const uint2 v = *reinterpret_cast<const device uint2*>(words + i);
      chunk.words[i] = v.x;
      chunk.words[i + 1] = v.y;
    }
    chunk.scale = float(scales[group]);
    chunk.bias = float(biases[group]);
    return chunk;
  }

  static METAL_FUNC Chunk nothing() {
    Chunk chunk;
#pragma unroll
    for (int i = 0; i < WORDS; ++i) {
      chunk.words[i] = 0;
    }
    chunk.scale = 0.0f;
    chunk.bias = 0.0f;
    return chunk;
  }

  static METAL_FUNC float value(thread const Chunk& chunk, int i) {
    const uint q = (chunk.words[i * BITS / 32] >> (i * BITS % 32)) & ((1u << BITS) - 1);
    return fma(float(q), chunk.scale, chunk.bias);
  }
};

// mxfp4 (GROUP 32, scales are powers of two: e8m0) and nvfp4 (GROUP 16, scales are e4m3), values e2m1.
template <int GROUP>
struct Fp4Weights {
  enum { VALUES = 16 };
  struct Chunk {
    uint words[2];
    float half_scale;
  };
  const device uint* w;
  const device uint8_t* scales;
  int K;

  METAL_FUNC Chunk fetch(int n, int k) const {
    const uint2 v = *reinterpret_cast<const device uint2*>(w + (size_t(n) * K + k) / 8);
    Chunk chunk;
    chunk.words[0] = v.x;
    chunk.words[1] = v.y;
    chunk.half_scale = 0.5f * scale(scales[(size_t(n) * K + k) / GROUP]);
    return chunk;
  }

  static METAL_FUNC float scale(uint8_t bits) {
    if (GROUP == 32) {
      return as_type<float>(uint(bits) << 23);
    }
    const uint exponent = (bits >> 3) & 15;
    const uint mantissa = bits & 7;
    const float magnitude = exponent == 0 ? float(mantissa) * as_type<float>(118u << 23)
                                          : float(8 + mantissa) * as_type<float>((117 + exponent) << 23);
    return (bits & 128) != 0 ? -magnitude : magnitude;
  }

  static METAL_FUNC Chunk nothing() {
    Chunk chunk;
    chunk.words[0] = 0;
    chunk.words[1] = 0;
    chunk.half_scale = 0.0f;
    return chunk;
  }

  static METAL_FUNC float value(thread const Chunk& chunk, int i) {
    const uint q = (chunk.words[i / 8] >> (i % 8 * 4)) & 15;
    // Twice the magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6 are integers of four bits: a table in one word.
    const float twice = float((0xC8643210u >> ((q & 7) * 4)) & 15);
    return ((q & 8) != 0 ? -twice : twice) * chunk.half_scale;
  }
};

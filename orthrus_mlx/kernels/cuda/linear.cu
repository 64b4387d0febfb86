// y = x W^T for up to 8 * M_TILES rows of x: the weight's rows are the rows of the matrix tiles, x's rows are columns.
//
// A column of a tile is computed without regard to its neighbours, the warps take fixed pieces of K in turn, and their
// sums are added in the order of the warps: a row of y has the same bits whatever rows travel with it.
//
// GATED: the weight is [gate; up] and y = silu(gate) * up. RESIDUAL: y = residual + x W^T. Every step rounds to T.

const int M = x_shape[0], K = x_shape[1], N = w_shape[0];
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const int g = lane / 4, t = lane % 4;
const int width = GATED ? N / 2 : N;
constexpr int PANELS = GATED ? 2 : N_TILES;

// Adjust rows
const int first = blockIdx.x * (GATED ? 16 : 16 * N_TILES);
int rows[PANELS];
#pragma unroll
for (int p = 0; p < PANELS; p++) {
  rows[p] = first + g + p * (GATED ? width : 16);
}

// Multiply this warp's pieces of K
float sums[PANELS][M_TILES][4] = {};
if constexpr (BITS == 0) {
  const T* weight = reinterpret_cast<const T*>(w);
  uint4 next[PANELS][2][2];
  auto fetch = [&](int k) {
#pragma unroll
    for (int p = 0; p < PANELS; p++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const T* from = weight + (long long)rows[p] * K + k + 32 * half + 8 * t;
        next[p][0][half] = stream_16_bytes(from);
        next[p][1][half] = stream_16_bytes(from + 8ll * K);
      }
    }
  };
  int k = 64 * warp;
  if (k < K) {
    fetch(k);
  }
  for (; k < K; k += 64 * WARPS) {
    uint4 now[PANELS][2][2];
#pragma unroll
    for (int i = 0; i < PANELS * 4; i++) {
      now[i / 4][i / 2 % 2][i % 2] = next[i / 4][i / 2 % 2][i % 2];
    }
    if (k + 64 * WARPS < K) {
      fetch(k + 64 * WARPS);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int m = 0; m < M_TILES; m++) {
        const int row = 8 * m + g;
        const uint4 column = load_8(x + (long long)row * K + k + 32 * half + 8 * t, row < M);
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
          multiply_32<T>(sums[p][m], now[p][0][half], now[p][1][half], column);
        }
      }
    }
  }
} else {
  // A lane takes 32 neighbouring weights of a row, so that its words are 16 bytes; they share one scale.
  const unsigned* weight = reinterpret_cast<const unsigned*>(w);
  for (int k = 128 * warp; k < K; k += 128 * WARPS) {
    uint4 words[PANELS][2];
    float scale[PANELS][2], bias[PANELS][2];
#pragma unroll
    for (int p = 0; p < PANELS; p++) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const long long row = rows[p] + 8 * r;
        words[p][r] = stream_16_bytes(weight + row * (K / 8) + k / 8 + 4 * t);
        const long long group = row * (K / GROUP) + (k + 32 * t) / GROUP;
        scale[p][r] = static_cast<float>(scales[group]);
        bias[p][r] = static_cast<float>(biases[group]);
      }
    }
#pragma unroll
    for (int word = 0; word < 4; word++) {
      uint4 dense[PANELS][2];
#pragma unroll
      for (int p = 0; p < PANELS; p++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const uint4& all = words[p][r];
          const unsigned packed = word == 0 ? all.x : word == 1 ? all.y : word == 2 ? all.z : all.w;
          unsigned pairs[4];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const float low = static_cast<float>(packed >> (8 * i) & 15u);
            const float high = static_cast<float>(packed >> (8 * i + 4) & 15u);
            pairs[i] = Pair<T>::pack(fmaf(scale[p][r], low, bias[p][r]), fmaf(scale[p][r], high, bias[p][r]));
          }
          dense[p][r] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        }
      }
#pragma unroll
      for (int m = 0; m < M_TILES; m++) {
        const int row = 8 * m + g;
        const uint4 column = load_8(x + (long long)row * K + k + 32 * t + 8 * word, row < M);
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
          multiply_32<T>(sums[p][m], dense[p][0], dense[p][1], column);
        }
      }
    }
  }
}

// Add the warps' sums in order
__shared__ float pieces[WARPS][PANELS][16][8 * M_TILES + 1];
#pragma unroll
for (int p = 0; p < PANELS; p++) {
#pragma unroll
  for (int m = 0; m < M_TILES; m++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      pieces[warp][p][g + 8 * (i / 2)][8 * m + 2 * t + i % 2] = sums[p][m][i];
    }
  }
}
__syncthreads();
auto total = [&](int p, int n, int m) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < WARPS; i++) {
    sum += pieces[i][p][n][m];
  }
  return static_cast<float>(static_cast<T>(sum));
};
constexpr int COLUMNS = GATED ? 16 : 16 * N_TILES;
for (int i = threadIdx.x; i < COLUMNS * M; i += 32 * WARPS) {
  const int n = i % COLUMNS, m = i / COLUMNS;
  const long long place = (long long)m * width + first + n;
  float value;
  if constexpr (GATED) {
    const float gate = total(0, n, m);
    value = static_cast<float>(static_cast<T>(gate / (1.0f + expf(-gate)))) * total(1, n, m);
  } else {
    value = total(n / 16, n % 16, m);
  }
  if constexpr (RESIDUAL) {
    value += static_cast<float>(residual[place]);
  }
  y[place] = static_cast<T>(value);
}

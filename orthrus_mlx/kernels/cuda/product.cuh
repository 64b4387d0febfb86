// y = x W^T for up to ROWS rows of x: the weight's rows are the rows of the matrix tiles, x's rows are columns.
//
// A thread block takes units of 16 PANELS rows of W, its warps take fixed pieces of K in turn, and their sums are added
// in the order of the warps; a column of a tile is computed without regard to its neighbours. So a row of y has the
// same bits whatever rows travel with it, as long as the code for 8, 16 and 32 rows does the same operations in the
// same order.
//
// Weights are copied to shared memory some steps ahead, over the ends of units and before the wait for x: memory never
// rests. Two panels read x once for both.

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int ROWS = 32, TILES = ROWS / 8;

// Where a weight lies. BITS 0: T [N, K]; 4: affine groups of GROUP, unsigned [N, K / 8] and T [N, K / GROUP].
template <typename T>
struct Matrix {
  const void* words;
  const T* scales;
  const T* biases;
};

// What a thread block holds of a step; a thread reads only what it copied. Per warp 64 values of k for each row of the
// tile, or 128 in 4 bits; a lane has of rows g and g + 8 two times 8 neighbouring values, or 32 of them in 4 bits,
// which share one scale.
template <int PANELS, int BITS>
struct Step {
  static constexpr int WORDS = BITS == 0 ? 2 : 1, WIDTH = BITS == 0 ? 64 : 128;
  uint4 words[PANELS][2][WORDS][THREADS];
};

// Shared memory of products. It may serve others between two of them.
struct Workspace {
  alignas(16) char ring[RING];
  float pieces[WARPS * 2 * 16 * (ROWS + 1)];

  // Scales and biases of some units, in SCALES bytes behind all else. Copied with the weights, a few of a row at a
  // time, they would take more of the first-level cache's time than the weights.
  __device__ unsigned* scales() { return reinterpret_cast<unsigned*>(this + 1); }
};
static_assert(sizeof(Workspace) + SCALES == WORKSPACE);

// The 32 bits from a row of scales to its biases and on to the next row: lanes of eight rows meet in no bank.
__device__ inline int scale_stride(int K, int group) {
  return (K / group / 2 + 3) / 4 * 4 + 2;
}

// 8 values of a row, normalised: rounded as the norm alone would.
template <typename T>
__device__ uint4 normalised(const uint4& values, float factor, const uint4& weights) {
  const unsigned from[4] = {values.x, values.y, values.z, values.w};
  const unsigned by[4] = {weights.x, weights.y, weights.z, weights.w};
  unsigned to[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    to[i] = Pair<T>::pack(
        Pair<T>::low(from[i]) * factor * Pair<T>::low(by[i]), Pair<T>::high(from[i]) * factor * Pair<T>::high(by[i]));
  }
  return make_uint4(to[0], to[1], to[2], to[3]);
}

// 8 values in the order of weights unpacked from 4 bits: pairs of those four apart.
__device__ inline uint4 as_unpacked(const uint4& values) {
  return make_uint4(
      __byte_perm(values.x, values.z, 0x5410), __byte_perm(values.x, values.z, 0x7632),
      __byte_perm(values.y, values.w, 0x5410), __byte_perm(values.y, values.w, 0x7632));
}

template <int N>
struct Count {
  static constexpr int value = N;
};

// Calls store(unit, n, m, totals[PANELS]) for n < 16 and m < M rounded up to 8, 16 or 32, by all threads of a warp or
// none, with totals[p] = row m of x times row `unit * spread + p * apart + n` of W, rounded to T.
//
// begin() is called once the first weights are on their way and returns x [M, K]: what it waits for is overlapped.
// NORMED: rows of x are scaled by factors[m] and norm [K] first.
template <typename T, int PANELS, int BITS, int GROUP, bool NORMED, typename Begin, typename Store>
__device__ void product(
    const Matrix<T>& matrix,
    int K,
    int units,
    int spread,
    int apart,
    int M,
    const T* norm,
    const float* factors,
    Workspace& workspace,
    Begin begin,
    Store store) {
  using Held = Step<PANELS, BITS>;
  constexpr int STRIDE = Held::WIDTH * WARPS, COLUMNS = ROWS + 1, DEPTH = RING / sizeof(Held);
  Held* ring = reinterpret_cast<Held*>(workspace.ring);
  float* pieces = workspace.pieces;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int g = lane / 4, t = lane % 4;
  const int first = Held::WIDTH * warp, steps = (K + STRIDE - 1) / STRIDE;
  const int mine = blockIdx.x < units ? (units - 1 - blockIdx.x) / gridDim.x + 1 : 0;
  const int total = mine * steps;

  // Fetch scales, a unit's at a time: rows of scales and of biases in turn, a warp for each
  const int stride = BITS == 0 ? 1 : scale_stride(K, GROUP), slot_size = 32 * PANELS * stride;
  const int slots = SCALES / sizeof(unsigned) / slot_size;
  // A slot is free again `slots` units later; its copies have ended by then if as many steps begin as are under way.
  const bool ended = (slots - 1) * steps > DEPTH;
  int scaled = 0, scaled_slot = 0;
  auto fetch_scales = [&] {
    if constexpr (BITS == 4) {
      if (scaled < mine) {
        const long long row = (blockIdx.x + (long long)scaled * gridDim.x) * spread;
        for (int i = warp; i < 32 * PANELS; i += WARPS) {
          const T* from = (i % 2 ? matrix.biases : matrix.scales) + (row + i / 32 * apart + i % 32 / 2) * (K / GROUP);
          unsigned* to = workspace.scales() + scaled_slot * slot_size + i * stride;
          for (int c = lane; c < K / GROUP / 2; c += 32) {
            start_copy<4>(to + c, from + 2 * c);
          }
        }
        scaled++;
        scaled_slot = scaled_slot + 1 == slots ? 0 : scaled_slot + 1;
      }
    }
  };
  for (int s = 0; s < slots; s++) {
    fetch_scales();
  }

  // Fetch weights
  int fetched = 0, fetched_slot = 0, fetched_step = 0, fetched_k = first;
  long long fetched_row = (long long)blockIdx.x * spread + g;
  auto fetch = [&] {
    if (fetched < total) {
      if (fetched_k < K) {
        Held& held = ring[fetched_slot];
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
#pragma unroll
          for (int r = 0; r < 2; r++) {
            const long long row = fetched_row + (long long)p * apart + 8 * r;
            if constexpr (BITS == 0) {
              const T* from = static_cast<const T*>(matrix.words) + row * K + fetched_k + 8 * t;
              start_copy<16>(&held.words[p][r][0][threadIdx.x], from);
              start_copy<16>(&held.words[p][r][1][threadIdx.x], from + 32);
            } else {
              const unsigned* from = static_cast<const unsigned*>(matrix.words) + row * (K / 8) + fetched_k / 8 + 4 * t;
              start_copy<16>(&held.words[p][r][0][threadIdx.x], from);
            }
          }
        }
      }
      fetched++;
      fetched_slot = fetched_slot + 1 == DEPTH ? 0 : fetched_slot + 1;
      fetched_k += STRIDE;
      if (++fetched_step == steps) {
        fetched_step = 0;
        fetched_k = first;
        fetched_row += (long long)gridDim.x * spread;
      }
    }
    end_copies();
  };
#pragma unroll
  for (int s = 0; s < DEPTH; s++) {
    fetch();
  }
  const T* x = begin();
  if constexpr (BITS == 4) {
    wait_for_copies<DEPTH - 1>();
    __syncthreads();
  }
  // Few rows pay for few tiles. A tile's arithmetic is the same, whatever number of them there is.
  auto work = [&](auto tiles) {
    constexpr int USED = decltype(tiles)::value;
    float factor[USED];
#pragma unroll
    for (int m = 0; m < USED; m++) {
      factor[m] = NORMED ? factors[8 * m + g] : 1.0f;
    }

    // Multiply
    float sums[PANELS][USED][4] = {};
    auto multiply = [&](const uint4 (&low)[PANELS], const uint4 (&high)[PANELS], const uint4 (&columns)[USED], int k) {
      uint4 weights = make_uint4(0, 0, 0, 0);
      if constexpr (NORMED) {
        weights = load_8(norm + k, true);
      }
#pragma unroll
      for (int m = 0; m < USED; m++) {
        uint4 column = NORMED ? normalised<T>(columns[m], factor[m], weights) : columns[m];
        if constexpr (BITS == 4) {
          column = as_unpacked(column);
        }
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
          multiply_32<T>(sums[p][m], low[p], high[p], column);
        }
      }
    };
    auto take = [&](const Held& held, const unsigned* unit_scales, int k) {
      uint4 low[PANELS], high[PANELS], columns[Held::WORDS][USED];
      auto read_columns = [&](int e, int at) {
#pragma unroll
        for (int m = 0; m < USED; m++) {
          const int row = 8 * m + g;
          columns[e][m] = load_8(x + (long long)row * K + at, row < M);
        }
      };
      if constexpr (BITS == 0) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          read_columns(half, k + 32 * half + 8 * t);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
          for (int p = 0; p < PANELS; p++) {
            low[p] = held.words[p][0][half][threadIdx.x];
            high[p] = held.words[p][1][half][threadIdx.x];
          }
          multiply(low, high, columns[half], k + 32 * half + 8 * t);
        }
      } else {
        const auto* of_row =
            reinterpret_cast<const unsigned short*>(unit_scales + 2 * g * stride) + (k + 32 * t) / GROUP;
        uint4 words[PANELS][2];
        unsigned scales[PANELS][2], biases[PANELS][2];
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
#pragma unroll
          for (int r = 0; r < 2; r++) {
            words[p][r] = held.words[p][r][0][threadIdx.x];
            const unsigned short* scale = of_row + 4 * (16 * p + 8 * r) * stride;
            scales[p][r] = __byte_perm(scale[0], 0, 0x1010);
            biases[p][r] = __byte_perm(scale[2 * stride], 0, 0x1010);
          }
        }
#pragma unroll
        for (int word = 0; word < 4; word++) {
          read_columns(0, k + 32 * t + 8 * word);
#pragma unroll
          for (int p = 0; p < PANELS; p++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
              const uint4& all = words[p][r];
              const unsigned packed = word == 0 ? all.x : word == 1 ? all.y : word == 2 ? all.z : all.w;
              unsigned pairs[4];
#pragma unroll
              for (int i = 0; i < 4; i++) {
                pairs[i] = Pair<T>::affine(packed >> 4 * i & 0x000f000fu, scales[p][r], biases[p][r]);
              }
              (r == 0 ? low : high)[p] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            }
          }
          multiply(low, high, columns[0], k + 32 * t + 8 * word);
        }
      }
    };

    // Add the warps' sums in order
    auto finish = [&](int unit) {
#pragma unroll
      for (int p = 0; p < PANELS; p++) {
#pragma unroll
        for (int m = 0; m < USED; m++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            pieces[((warp * PANELS + p) * 16 + g + 8 * (i / 2)) * COLUMNS + 8 * m + 2 * t + i % 2] = sums[p][m][i];
            sums[p][m][i] = 0;
          }
        }
      }
      __syncthreads();
      for (int i = threadIdx.x; i < 128 * USED; i += THREADS) {
        const int n = i % 16, m = i / 16;
        float totals[PANELS];
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
          float sum = 0;
#pragma unroll
          for (int w = 0; w < WARPS; w++) {
            sum += pieces[((w * PANELS + p) * 16 + n) * COLUMNS + m];
          }
          totals[p] = static_cast<float>(static_cast<T>(sum));
        }
        store(unit, n, m, totals);
      }
      __syncthreads();
    };

    int unit = blockIdx.x, slot = 0, scale_slot = 0, step = 0, k = first;
    for (int i = 0; i < total; i++) {
      wait_for_copies<DEPTH - 1>();
      if (k < K) {
        take(ring[slot], workspace.scales() + scale_slot * slot_size, k);
      }
      fetch();
      slot = slot + 1 == DEPTH ? 0 : slot + 1;
      k += STRIDE;
      if (++step == steps) {
        finish(unit);
        unit += gridDim.x;
        step = 0;
        k = first;
        if constexpr (BITS == 4) {
          scale_slot = scale_slot + 1 == slots ? 0 : scale_slot + 1;
          fetch_scales();
          if (!ended) {
            end_copies();
            wait_for_copies<0>();
            __syncthreads();
          }
        }
      }
    }
  };
  if (M <= 8) {
    work(Count<1>());
  } else if (M <= 16) {
    work(Count<2>());
  } else {
    work(Count<TILES>());
  }
}

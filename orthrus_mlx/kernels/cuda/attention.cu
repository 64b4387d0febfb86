// Attention of a block over the cache, 128 keys at a time. A thread block: one chunk of keys (x), one key/value head
// (y), one path of the block and 16 of its query rows (z); each of its four warps takes 32 of the keys.
//
// Keys stand at absolute positions in chunks, warps and tiles, a key that a row may not see adds exact zeros, and pieces
// are joined in ascending order: a row's bits depend on its query and the keys that it sees, nothing else.
//
// paths [P, S]: the block's rows on each path from the root, -1 behind its end; position offset + i on a path holds the
// cache's row offset + paths[p][i]. A query row is (head of the group, i). Rows on several paths get the same bits.

constexpr int STEPS = D / 32, HALVES = D / 64;
const int S = paths_shape[1], L = queries_shape[1], capacity = keys_shape[2];
const int rows = REPEATS * S, groups = (rows + 15) / 16;
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const int g = lane / 4, t = lane % 4;
const int chunk = blockIdx.x, head = blockIdx.y, path = blockIdx.z / groups, group = blockIdx.z % groups;
const int prefix = offset[0], end = prefix + S;
const int base = 128 * chunk + 32 * warp;
if (128 * chunk < end) {
  const int* nodes = paths + path * S;
  const T* key_rows = keys + (long long)head * capacity * D;
  const T* value_rows = values + (long long)head * capacity * D;
  auto cache_row = [&](int position) {
    return position < prefix ? position : position < end && nodes[position - prefix] >= 0
        ? prefix + nodes[position - prefix]
        : -1;
  };

  // Read the queries
  uint4 query[2][STEPS];
  int step[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int row = 16 * group + g + 8 * r;
    step[r] = row % S;
    const int node = row < rows ? nodes[step[r]] : -1;
    const T* from = queries + ((long long)(head * REPEATS + row / S) * L + node) * D;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      query[r][i] = load_8(from + 32 * i + 8 * t, node >= 0);
    }
  }

  // Scores of 32 keys
  float scores[4][4] = {};
#pragma unroll
  for (int n = 0; n < 4; n++) {
    const int from = cache_row(base + 8 * n + g);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const uint4 key = load_8(key_rows + (long long)from * D + 32 * i + 8 * t, from >= 0);
      multiply_32<T>(scores[n], query[0][i], query[1][i], key);
    }
  }

  // Softmax over them
  float peak[2] = {-INFINITY, -INFINITY}, mass[2] = {0, 0};
#pragma unroll
  for (int n = 0; n < 4; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int position = base + 8 * n + 2 * t + i % 2;
      const bool seen = position < prefix || (CAUSAL ? position - prefix <= step[i / 2] : position < end);
      scores[n][i] = seen ? scores[n][i] * settings[1] : -INFINITY;
      peak[i / 2] = fmaxf(peak[i / 2], scores[n][i]);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    peak[r] = fmaxf(peak[r], __shfl_xor_sync(0xffffffffu, peak[r], 1));
    peak[r] = fmaxf(peak[r], __shfl_xor_sync(0xffffffffu, peak[r], 2));
  }
#pragma unroll
  for (int n = 0; n < 4; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      scores[n][i] = peak[i / 2] == -INFINITY ? 0.0f : exp2f(scores[n][i] - peak[i / 2]);
      mass[i / 2] += scores[n][i];
    }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    mass[r] += __shfl_xor_sync(0xffffffffu, mass[r], 1);
    mass[r] += __shfl_xor_sync(0xffffffffu, mass[r], 2);
  }

  // Weigh the values: column c of tile (half, j) is dimension 64 half + 8 c + j
  float sums[HALVES][8][4] = {};
#pragma unroll
  for (int s = 0; s < 2; s++) {
    const unsigned a0 = Pair<T>::pack(scores[2 * s][0], scores[2 * s][1]);
    const unsigned a1 = Pair<T>::pack(scores[2 * s][2], scores[2 * s][3]);
    const unsigned a2 = Pair<T>::pack(scores[2 * s + 1][0], scores[2 * s + 1][1]);
    const unsigned a3 = Pair<T>::pack(scores[2 * s + 1][2], scores[2 * s + 1][3]);
    int from[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      from[i] = cache_row(base + 16 * s + 2 * t + i % 2 + 8 * (i / 2));
    }
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
      uint4 value[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        value[i] = load_8(value_rows + (long long)from[i] * D + 64 * half + 8 * g, from[i] >= 0);
      }
#pragma unroll
      for (int j = 0; j < 8; j++) {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          words[i] = j < 2 ? value[i].x : j < 4 ? value[i].y : j < 6 ? value[i].z : value[i].w;
        }
        const unsigned halves = j % 2 ? 0x7632 : 0x5410;
        const unsigned b0 = __byte_perm(words[0], words[1], halves);
        const unsigned b1 = __byte_perm(words[2], words[3], halves);
        Pair<T>::multiply(sums[half][j], a0, a1, a2, a3, b0, b1);
      }
    }
  }

  // Join the warps
  __shared__ float piece[4][16][D + 4];
  __shared__ float peaks[4][16], masses[4][16];
#pragma unroll
  for (int half = 0; half < HALVES; half++) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        piece[warp][g + 8 * (i / 2)][64 * half + 8 * (2 * t + i % 2) + j] = sums[half][j][i];
      }
    }
  }
  if (t == 0) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      peaks[warp][g + 8 * r] = peak[r];
      masses[warp][g + 8 * r] = mass[r];
    }
  }
  __syncthreads();
  const long long place = ((long long)(path * gridDim.y + head) * gridDim.x + chunk) * rows;
  for (int i = threadIdx.x; i < 16 * D; i += 128) {
    const int r = i / D, d = i % D, row = 16 * group + r;
    if (row < rows) {
      float top = -INFINITY;
#pragma unroll
      for (int w = 0; w < 4; w++) {
        top = fmaxf(top, peaks[w][r]);
      }
      float sum = 0, weight = 0;
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const float factor = peaks[w][r] == -INFINITY ? 0.0f : exp2f(peaks[w][r] - top);
        sum += factor * piece[w][r][d];
        weight += factor * masses[w][r];
      }
      chunk_sums[(place + row) * D + d] = sum;
      if (d == 0) {
        chunk_peaks[place + row] = top;
        chunk_masses[place + row] = weight;
      }
    }
  }
}

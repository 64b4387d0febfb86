// Splits [L, (H + 2 G) D] into heads: normalises and rotates queries and keys, and puts keys and values into the cache.
//
// A warp per row and head; a lane holds pairs (i, i + D / 2). The cache's buffers [G, capacity, D] are written in
// place at rows offset .. offset + L - 1, which are scratch until they are committed.
template <typename T, int H, int G, int D>
__device__ void rotate(
    const T* qkv,
    const T* query_weight,
    const T* key_weight,
    const float* frequencies,
    float eps,
    const int* depths,
    int offset,
    int L,
    int capacity,
    T* queries,
    T* keys,
    T* values) {
  constexpr int HEADS = H + 2 * G, PAIRS = D / 64;
  const int lane = threadIdx.x % 32;
  for (int item = blockIdx.x + gridDim.x * (threadIdx.x / 32); item < L * HEADS; item += gridDim.x * WARPS) {
    const int row = item / HEADS, head = item % HEADS;
    const T* from = qkv + (long long)row * HEADS * D + head * D;
    float low[PAIRS], high[PAIRS];
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
      low[p] = static_cast<float>(from[PAIRS * lane + p]);
      high[p] = static_cast<float>(from[D / 2 + PAIRS * lane + p]);
    }

    if (head < H + G) {
      // Normalise
      float square = 0;
#pragma unroll
      for (int p = 0; p < PAIRS; p++) {
        square = fmaf(low[p], low[p], square);
        square = fmaf(high[p], high[p], square);
      }
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        square += __shfl_xor_sync(0xffffffffu, square, distance);
      }
      const float factor = rsqrtf(square / D + eps);
      const T* weight = head < H ? query_weight : key_weight;
      // Rotate
      const float position = static_cast<float>(offset + depths[row]);
#pragma unroll
      for (int p = 0; p < PAIRS; p++) {
        const int i = PAIRS * lane + p;
        const float a = static_cast<float>(static_cast<T>(low[p] * factor * static_cast<float>(weight[i])));
        const float b = static_cast<float>(static_cast<T>(high[p] * factor * static_cast<float>(weight[D / 2 + i])));
        float sine, cosine;
        sincosf(position * frequencies[i], &sine, &cosine);
        low[p] = fmaf(a, cosine, -(b * sine));
        high[p] = fmaf(a, sine, b * cosine);
      }
    }

    // Store
    T* to = head < H ? queries + ((long long)head * L + row) * D
                     : (head < H + G ? keys : values) + ((long long)((head - H) % G) * capacity + offset + row) * D;
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
      to[PAIRS * lane + p] = static_cast<T>(low[p]);
      to[D / 2 + PAIRS * lane + p] = static_cast<T>(high[p]);
    }
  }
}

// Joins the chunks of `attention.cu` in ascending order: y [L, H D]. A warp per path, head and step of the path.

const int P = paths_shape[0], S = paths_shape[1], chunks = peaks_shape[2];
const int rows = REPEATS * S, lane = threadIdx.x % 32;
const int item = blockIdx.x * 4 + threadIdx.x / 32;
const int path = item / (G * rows), head = item / rows % G, row = item % rows;
const int node = path < P ? paths[path * S + row % S] : -1;
if (node >= 0) {
  const int used = min(chunks, (offset[0] + S + 127) / 128);
  const long long first = (long long)(path * G + head) * chunks * rows + row;
  float top = -INFINITY;
  for (int c = 0; c < used; c++) {
    top = fmaxf(top, peaks[first + (long long)c * rows]);
  }
  float total[D / 32] = {}, mass = 0;
  for (int c = 0; c < used; c++) {
    const long long from = first + (long long)c * rows;
    const float factor = peaks[from] == -INFINITY ? 0.0f : exp2f(peaks[from] - top);
    mass += factor * masses[from];
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
      total[i] += factor * sums[from * D + 32 * i + lane];
    }
  }
  T* to = y + ((long long)node * G * REPEATS + head * REPEATS + row / S) * D;
#pragma unroll
  for (int i = 0; i < D / 32; i++) {
    to[32 * i + lane] = static_cast<T>(total[i] / mass);
  }
}

// 8x8 matrix products on a simdgroup. A lane holds two neighbouring elements of each 8x8 tile.
//
// The lane map is not documented by Apple; MLX's own kernels rely on it on every GPU generation
// (mlx/backend/metal/kernels/steel/gemm/mma.h), and the self-test compares results on the user's device.

#include <metal_simdgroup_matrix>

METAL_FUNC int tile_row(ushort lane) {
  return ((lane / 4) & 4) + (lane / 2) % 4;
}

// Column of the first of the lane's two elements.
METAL_FUNC int tile_column(ushort lane) {
  return ((lane / 4) & 2) * 2 + (lane % 2) * 2;
}

// sum += a b, where a lane passes its two elements of each.
METAL_FUNC void multiply_accumulate(thread float2& sum, float2 a, float2 b) {
  simdgroup_matrix<float, 8, 8> left;
  simdgroup_matrix<float, 8, 8> right;
  simdgroup_matrix<float, 8, 8> total;
  reinterpret_cast<thread float2&>(left.thread_elements()) = a;
  reinterpret_cast<thread float2&>(right.thread_elements()) = b;
  reinterpret_cast<thread float2&>(total.thread_elements()) = sum;
  simdgroup_multiply_accumulate(total, left, right, total);
  sum = reinterpret_cast<thread float2&>(total.thread_elements());
}

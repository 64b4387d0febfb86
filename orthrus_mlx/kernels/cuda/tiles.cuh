// 16x8x16 matrix tiles of a warp (PTX mma.m16n8k16), and vectors of 8 values.
//
// Lane l = 4 g + t holds row g and row g + 8 of A, column g of B, and of the sums: rows g, g + 8, columns 2 t, 2 t + 1.
// A product sums over k, so k may be numbered at will if A and B agree: a lane takes 8 neighbouring values of a row
// (16 bytes), which stand for k = 2 t, 2 t + 1, 2 t + 8, 2 t + 9 of two tiles.

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

template <typename T>
struct Pair;

template <>
struct Pair<__nv_bfloat16> {
  static __device__ unsigned pack(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<unsigned*>(&pair);
  }
  static __device__ void multiply(
      float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

template <>
struct Pair<__half> {
  static __device__ unsigned pack(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<unsigned*>(&pair);
  }
  static __device__ void multiply(
      float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

// sums += A B over 32 values of k: 8 of row g (low), row g + 8 (high) and column g per lane.
template <typename T>
__device__ void multiply_32(float (&sums)[4], const uint4& low, const uint4& high, const uint4& column) {
  Pair<T>::multiply(sums, low.x, high.x, low.y, high.y, column.x, column.y);
  Pair<T>::multiply(sums, low.z, high.z, low.w, high.w, column.z, column.w);
}

template <typename T>
__device__ uint4 load_8(const T* from, bool valid) {
  return valid ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
}

// Weights are read once: they need not stay in the cache.
template <typename T>
__device__ uint4 stream_16_bytes(const T* from) {
  return __ldcs(reinterpret_cast<const uint4*>(from));
}

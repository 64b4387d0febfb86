// The part of Metal that the kernels in metal/ use, for NVRTC: an independent check of the same text on an NVIDIA
// GPU (benchmarks/cuda_kernels.py). A simdgroup is a warp, a threadgroup a block. Compile with --fmad=false
// --device-as-default-execution-space.

typedef unsigned char uint8_t;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned int uint32_t;
typedef int int32_t;

#define METAL_FUNC __device__ __forceinline__
#define INFINITY __int_as_float(0x7F800000)
#define float2 msl_float2
#define float4 msl_float4
#define uint2 msl_uint2
#define uint3 msl_uint3

// 16-bit types: bits in memory, floats in arithmetic.
struct half {
  ushort bits;
  half() = default;
  explicit half(float value) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value)); }
  operator float() const {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
  }
};
struct bfloat16_t {
  ushort bits;
  bfloat16_t() = default;
  explicit bfloat16_t(float value) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value)); }
  operator float() const { return __uint_as_float(uint(bits) << 16); }
};
typedef half float16_t;

template <class T, int N>
struct vec;
template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  T x, y;
  vec() = default;
  explicit vec(T s) : x(s), y(s) {}
  vec(T x, T y) : x(x), y(y) {}
  T &operator[](int i) { return i == 0 ? x : y; }
  T operator[](int i) const { return i == 0 ? x : y; }
};
template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  T x, y, z, w;
  vec() = default;
  explicit vec(T s) : x(s), y(s), z(s), w(s) {}
  vec(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}
};
typedef vec<float, 2> float2;
typedef vec<float, 4> float4;
typedef vec<uint, 2> uint2;
struct uint3 {
  uint x, y, z;
};

METAL_FUNC float2 operator*(float2 a, float b) { return float2(a.x * b, a.y * b); }
METAL_FUNC float2 fma(float2 a, float2 b, float2 c) { return float2(::fma(a.x, b.x, c.x), ::fma(a.y, b.y, c.y)); }
METAL_FUNC int clamp(int value, int low, int high) { return min(max(value, low), high); }
namespace fast {
METAL_FUNC float exp2(float value) { return ::exp2f(value); }
}  // namespace fast

template <class To, class From>
METAL_FUNC To as_type(From value) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs types of equal size");
  union {
    From from;
    To to;
  } both;
  both.from = value;
  return both.to;
}

enum class mem_flags { mem_none, mem_device, mem_threadgroup };
METAL_FUNC void threadgroup_barrier(mem_flags) { __syncthreads(); }
METAL_FUNC void simdgroup_barrier(mem_flags) { __syncwarp(); }
template <class T>
METAL_FUNC T simd_shuffle(T value, ushort lane) {
  return __shfl_sync(0xFFFFFFFFu, value, lane);
}
template <class T>
METAL_FUNC T simd_shuffle_xor(T value, ushort mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
}

// 8x8 tiles with MLX's lane map, k ascending, products and sums rounded each: the emulator's arithmetic.
template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  float2 elements;
  float2 &thread_elements() { return elements; }
};
METAL_FUNC void simdgroup_multiply_accumulate(simdgroup_matrix<float, 8, 8> &d, simdgroup_matrix<float, 8, 8> a,
                                              simdgroup_matrix<float, 8, 8> b, simdgroup_matrix<float, 8, 8> c) {
  const int lane = threadIdx.x % 32;
  const int row = ((lane / 4) & 4) + lane / 2 % 4, column = ((lane / 4) & 2) * 2 + lane % 2 * 2;
  float2 sum = c.elements;
  for (int k = 0; k < 8; ++k) {
    const int left_lane = row / 4 * 16 + k / 4 * 8 + row % 4 * 2 + k % 4 / 2;
    const int right_lane = k / 4 * 16 + column / 4 * 8 + k % 4 * 2 + column % 4 / 2;
    const float even = simd_shuffle(a.elements.x, left_lane), odd = simd_shuffle(a.elements.y, left_lane);
    const float left = k % 2 == 0 ? even : odd;
    sum.x = sum.x + left * simd_shuffle(b.elements.x, right_lane);
    sum.y = sum.y + left * simd_shuffle(b.elements.y, right_lane);
  }
  d.elements = sum;
}

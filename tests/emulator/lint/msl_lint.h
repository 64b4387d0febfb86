// Metal's names with their real address spaces, for a clang that only checks types. Nothing here has a body.
#pragma once

#define device __attribute__((address_space(1)))
#define constant const __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define thread
#define kernel
#define METAL_FUNC inline __attribute__((annotate("METAL_FUNC")))
#define MLX_MTL_PRAGMA_UNROLL

typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
typedef __bf16 bfloat;

half operator""h(long double);
half operator""H(long double);
bfloat operator""bf(long double);
bfloat operator""BF(long double);

// Vector constructors with several arguments; preprocessing writes float4(a, b) as emu_make<float4>(a, b).
template <class V, class... Parts>
constexpr V emu_make(Parts...) {
  return V();
}

namespace metal {

template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));
#define EMU_VECTORS(T)  \
  typedef vec<T, 2> T##2; \
  typedef vec<T, 3> T##3; \
  typedef vec<T, 4> T##4;
EMU_VECTORS(bool)
EMU_VECTORS(char)
EMU_VECTORS(uchar)
EMU_VECTORS(short)
EMU_VECTORS(ushort)
EMU_VECTORS(int)
EMU_VECTORS(uint)
EMU_VECTORS(long)
EMU_VECTORS(ulong)
EMU_VECTORS(half)
EMU_VECTORS(float)
EMU_VECTORS(bfloat)
#undef EMU_VECTORS

template <bool B, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  typedef T type;
};
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F>
struct conditional {
  typedef T type;
};
template <class T, class F>
struct conditional<false, T, F> {
  typedef F type;
};
template <bool B, class T, class F>
using conditional_t = typename conditional<B, T, F>::type;
template <class T, class U>
struct is_same {
  static constexpr bool value = false;
};
template <class T>
struct is_same<T, T> {
  static constexpr bool value = true;
};
template <class T, class U>
constexpr bool is_same_v = is_same<T, U>::value;

template <class T>
struct numeric_limits {
  static constexpr T max();
  static constexpr T min();
  static constexpr T lowest();
  static constexpr T epsilon();
  static constexpr T infinity();
  static constexpr T quiet_NaN();
};

#define EMU_FLOAT_1(name)       \
  float name(float);            \
  half name(half);              \
  bfloat name(bfloat);          \
  template <class T, int N>     \
  vec<T, N> name(vec<T, N>);
#define EMU_FLOAT_2(name)                 \
  float name(float, float);               \
  half name(half, half);                  \
  bfloat name(bfloat, bfloat);            \
  template <class T, int N>               \
  vec<T, N> name(vec<T, N>, vec<T, N>);
#define EMU_TEST(name)          \
  bool name(float);             \
  bool name(half);              \
  bool name(bfloat);            \
  template <class T, int N>     \
  vec<bool, N> name(vec<T, N>);
#define EMU_EACH_INTEGER(M, name) \
  M(char, name) M(uchar, name) M(short, name) M(ushort, name) M(int, name) M(uint, name) M(long, name) M(ulong, name)
#define EMU_INTEGER_1(T, name) T name(T);
#define EMU_INTEGER_2(T, name) T name(T, T);
#define EMU_INTEGER_3(T, name) T name(T, T, T);

EMU_FLOAT_1(exp) EMU_FLOAT_1(exp2) EMU_FLOAT_1(exp10) EMU_FLOAT_1(log) EMU_FLOAT_1(log2) EMU_FLOAT_1(log10)
EMU_FLOAT_1(sqrt) EMU_FLOAT_1(rsqrt) EMU_FLOAT_1(sin) EMU_FLOAT_1(cos) EMU_FLOAT_1(tan) EMU_FLOAT_1(asin)
EMU_FLOAT_1(acos) EMU_FLOAT_1(atan) EMU_FLOAT_1(sinh) EMU_FLOAT_1(cosh) EMU_FLOAT_1(tanh) EMU_FLOAT_1(asinh)
EMU_FLOAT_1(acosh) EMU_FLOAT_1(atanh) EMU_FLOAT_1(fabs) EMU_FLOAT_1(floor) EMU_FLOAT_1(ceil) EMU_FLOAT_1(round)
EMU_FLOAT_1(rint) EMU_FLOAT_1(trunc) EMU_FLOAT_1(fract) EMU_FLOAT_1(sign) EMU_FLOAT_1(saturate)
EMU_FLOAT_2(fmin) EMU_FLOAT_2(fmax) EMU_FLOAT_2(fmod) EMU_FLOAT_2(pow) EMU_FLOAT_2(powr) EMU_FLOAT_2(atan2)
EMU_FLOAT_2(copysign) EMU_FLOAT_2(fdim) EMU_FLOAT_2(step)
EMU_TEST(isnan) EMU_TEST(isinf) EMU_TEST(isfinite) EMU_TEST(isnormal) EMU_TEST(signbit)
EMU_FLOAT_1(abs) EMU_EACH_INTEGER(EMU_INTEGER_1, abs)
EMU_FLOAT_2(max) EMU_EACH_INTEGER(EMU_INTEGER_2, max)
EMU_FLOAT_2(min) EMU_EACH_INTEGER(EMU_INTEGER_2, min)
float fma(float, float, float);
half fma(half, half, half);
template <class T, int N>
vec<T, N> fma(vec<T, N>, vec<T, N>, vec<T, N>);
float clamp(float, float, float);
half clamp(half, half, half);
bfloat clamp(bfloat, bfloat, bfloat);
EMU_EACH_INTEGER(EMU_INTEGER_3, clamp)
template <class T, int N>
vec<T, N> clamp(vec<T, N>, vec<T, N>, vec<T, N>);
template <class T>
T max3(T, T, T);
template <class T>
T min3(T, T, T);
template <class T>
T mix(T, T, T);
template <class T>
T select(T, T, bool);
template <class T, int N>
vec<T, N> select(vec<T, N>, vec<T, N>, vec<bool, N>);
template <int N>
bool any(vec<bool, N>);
template <int N>
bool all(vec<bool, N>);
template <class T, int N>
T dot(vec<T, N>, vec<T, N>);
template <class T, int N>
T length(vec<T, N>);
float ldexp(float, int);
half ldexp(half, int);
float frexp(float, int &);
float modf(float, float &);
int ilogb(float);
EMU_EACH_INTEGER(EMU_INTEGER_1, popcount) EMU_EACH_INTEGER(EMU_INTEGER_1, clz) EMU_EACH_INTEGER(EMU_INTEGER_1, ctz)
EMU_EACH_INTEGER(EMU_INTEGER_1, reverse_bits) EMU_EACH_INTEGER(EMU_INTEGER_2, rotate)
EMU_EACH_INTEGER(EMU_INTEGER_2, absdiff)
int mulhi(int, int);
uint mulhi(uint, uint);
ulong mulhi(ulong, ulong);
int mul24(int, int);
uint mul24(uint, uint);
int mad24(int, int, int);
uint mad24(uint, uint, uint);
template <class T>
T extract_bits(T, uint, uint);
template <class T>
T insert_bits(T, T, uint, uint);

enum class mem_flags : unsigned { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
mem_flags operator|(mem_flags, mem_flags);
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);

#define EMU_LANES_1(name) \
  template <class T>      \
  T name(T);
#define EMU_LANES_2(name) \
  template <class T>      \
  T name(T, ushort);
EMU_LANES_1(simd_sum) EMU_LANES_1(simd_product) EMU_LANES_1(simd_max) EMU_LANES_1(simd_min) EMU_LANES_1(simd_and)
EMU_LANES_1(simd_or) EMU_LANES_1(simd_xor) EMU_LANES_1(simd_prefix_exclusive_sum)
EMU_LANES_1(simd_prefix_inclusive_sum) EMU_LANES_1(simd_prefix_exclusive_product)
EMU_LANES_1(simd_prefix_inclusive_product) EMU_LANES_1(simd_broadcast_first) EMU_LANES_1(quad_sum)
EMU_LANES_1(quad_max) EMU_LANES_1(quad_min)
EMU_LANES_2(simd_shuffle) EMU_LANES_2(simd_shuffle_xor) EMU_LANES_2(simd_shuffle_down) EMU_LANES_2(simd_shuffle_up)
EMU_LANES_2(simd_shuffle_rotate_down) EMU_LANES_2(simd_shuffle_rotate_up) EMU_LANES_2(simd_broadcast)
EMU_LANES_2(quad_shuffle) EMU_LANES_2(quad_shuffle_xor) EMU_LANES_2(quad_shuffle_down) EMU_LANES_2(quad_shuffle_up)
EMU_LANES_2(quad_broadcast)
template <class T>
T simd_shuffle_and_fill_down(T, T, ushort);
template <class T>
T simd_shuffle_and_fill_up(T, T, ushort);
bool simd_all(bool);
bool simd_any(bool);
bool simd_is_first();
struct simd_vote {
  typedef uint64_t vote_t;
  explicit simd_vote(vote_t);
  explicit operator vote_t() const;
  bool all() const;
  bool any() const;
};
simd_vote simd_ballot(bool);

template <class T, int Columns = 8, int Rows = 8>
struct simdgroup_matrix {
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T);
  vec<T, 2> &thread_elements();
  const vec<T, 2> &thread_elements() const;
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
template <class T, int Columns, int Rows = Columns>
simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T);
template <class T, int Columns, int Rows = Columns>
simdgroup_matrix<T, Columns, Rows> make_diagonal_simdgroup_matrix(T);
#define EMU_MATRIX_ACCESS(space)                                                                                  \
  template <class T>                                                                                              \
  void simdgroup_load(simdgroup_matrix<T, 8, 8> &, const space T *, ulong = 8, ulong2 = ulong2(0), bool = false); \
  template <class T>                                                                                              \
  void simdgroup_store(simdgroup_matrix<T, 8, 8>, space T *, ulong = 8, ulong2 = ulong2(0), bool = false);
EMU_MATRIX_ACCESS(device)
EMU_MATRIX_ACCESS(threadgroup)
template <class T, class A, class B>
void simdgroup_multiply_accumulate(simdgroup_matrix<T, 8, 8> &, simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>,
                                   simdgroup_matrix<T, 8, 8>);
template <class T, class A, class B>
void simdgroup_multiply(simdgroup_matrix<T, 8, 8> &, simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>);

enum memory_order { memory_order_relaxed };
enum thread_scope { thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device };
void atomic_thread_fence(mem_flags, memory_order, thread_scope = thread_scope_device);
// A vector of one: a class would need a constructor for every address space.
template <class T>
using atomic = T __attribute__((ext_vector_type(1)));
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
template <class T>
struct same {
  typedef T type;
};
#define EMU_FETCH(space, name) \
  template <class T>           \
  T name(volatile space atomic<T> *, typename same<T>::type, memory_order);
#define EMU_ATOMICS(space)                                                                                    \
  template <class T>                                                                                          \
  T atomic_load_explicit(const volatile space atomic<T> *, memory_order);                                     \
  template <class T>                                                                                          \
  void atomic_store_explicit(volatile space atomic<T> *, typename same<T>::type, memory_order);               \
  EMU_FETCH(space, atomic_exchange_explicit) EMU_FETCH(space, atomic_fetch_add_explicit)                      \
  EMU_FETCH(space, atomic_fetch_sub_explicit) EMU_FETCH(space, atomic_fetch_max_explicit)                     \
  EMU_FETCH(space, atomic_fetch_min_explicit) EMU_FETCH(space, atomic_fetch_and_explicit)                     \
  EMU_FETCH(space, atomic_fetch_or_explicit) EMU_FETCH(space, atomic_fetch_xor_explicit)                      \
  template <class T>                                                                                          \
  bool atomic_compare_exchange_weak_explicit(volatile space atomic<T> *, T *, typename same<T>::type,         \
                                             memory_order, memory_order);
EMU_ATOMICS(device)
EMU_ATOMICS(threadgroup)

namespace precise {
using namespace metal;
}
namespace fast {
using namespace metal;
}

}  // namespace metal

template <class To, class From>
To as_type(From);

using namespace metal;

// What MLX puts in front, in its own address spaces.
typedef half float16_t;
typedef bfloat bfloat16_t;
template <class T>
struct Limits {
  static const constant T max;
  static const constant T min;
  static const constant T finite_max;
  static const constant T finite_min;
};
template <class T, class U>
T ceildiv(T, U);
template <class Index = int64_t>
Index elem_to_loc(Index, const constant int *, const constant int64_t *, int);

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#define INT_MAX 2147483647
#define UINT_MAX 4294967295u
#define M_LOG2E_F 1.44269504088896340736f
#define M_LN2_F 0.693147180559945309417f
#define M_PI_F 3.14159265358979323846f
#define M_SQRT2_F 1.41421356237309504880f

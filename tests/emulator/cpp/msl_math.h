// Metal's math library, over float; half and bfloat go through float and round once.
#pragma once

#include "msl_types.h"

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VALF __builtin_huge_valf()
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#define HALF_MAX half(65504.0f)
#define HALF_MIN half(6.103515625e-05f)
#define HALF_EPSILON half(9.765625e-04f)
#define CHAR_BIT 8
#define SHRT_MAX 32767
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-2147483647 - 1)
#define UINT_MAX 4294967295u
#define LONG_MAX 9223372036854775807l
#define ULONG_MAX 18446744073709551615ul
#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG10E_F 0.434294481903251827651f
#define M_LN2_F 0.693147180559945309417f
#define M_LN10_F 2.30258509299404568402f
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_PI_4_F 0.785398163397448309616f
#define M_1_PI_F 0.318309886183790671538f
#define M_2_PI_F 0.636619772367581343076f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.707106781186547524401f

namespace metal {

// A perturbed build (-DEMU_PERTURBED) computes as another device might: functions up to 4 units in the last place off,
// always the same for the same argument, sums in another order; the compiler contracts and divides by reciprocals.
#ifdef EMU_PERTURBED
constexpr bool perturbed = true;
#else
constexpr bool perturbed = false;
#endif
inline float inexact(float value, float x) {
  const uint bits = as_type<uint>(value), magnitude = bits & 0x7FFFFFFFu;
  if (!perturbed || magnitude < 8u || magnitude > 0x7F7FFFF0u) return value;
  return as_type<float>(bits + ((as_type<uint>(x) * 0x9E3779B9u) >> 16) % 9u - 4u);
}

// One overload a type, so that an integer argument is ambiguous, as it is in Metal.
#define EMU_UNARY(name, expression)                                                                     \
  inline float name(float x) { return expression; }                                                     \
  inline half name(half x) { return half(name(float(x))); }                                             \
  inline bfloat name(bfloat x) { return bfloat(name(float(x))); }                                       \
  template <class T, int N>                                                                             \
  inline vec<T, N> name(vec<T, N> v) {                                                                  \
    return map(v, [](T x) { return name(x); });                                                         \
  }
#define EMU_BINARY(name, expression)                                                                    \
  inline float name(float x, float y) { return expression; }                                            \
  inline half name(half x, half y) { return half(name(float(x), float(y))); }                           \
  inline bfloat name(bfloat x, bfloat y) { return bfloat(name(float(x), float(y))); }                   \
  template <class T, int N>                                                                             \
  inline vec<T, N> name(vec<T, N> a, vec<T, N> b) {                                                     \
    return zip(a, b, [](T x, T y) { return name(x, y); });                                              \
  }
#define EMU_TEST(name, expression)                                                                      \
  inline bool name(float x) { return expression; }                                                      \
  inline bool name(half x) { return name(float(x)); }                                                   \
  inline bool name(bfloat x) { return name(float(x)); }                                                 \
  template <class T, int N>                                                                             \
  inline vec<bool, N> name(vec<T, N> v) {                                                               \
    return map(v, [](T x) { return name(x); });                                                         \
  }

EMU_UNARY(exp, inexact(__builtin_expf(x), x))
EMU_UNARY(exp2, inexact(__builtin_exp2f(x), x))
EMU_UNARY(exp10, inexact(__builtin_powf(10.0f, x), x))
EMU_UNARY(log, inexact(__builtin_logf(x), x))
EMU_UNARY(log2, inexact(__builtin_log2f(x), x))
EMU_UNARY(log10, inexact(__builtin_log10f(x), x))
EMU_UNARY(sqrt, __builtin_sqrtf(x))
EMU_UNARY(rsqrt, inexact(1.0f / __builtin_sqrtf(x), x))
EMU_UNARY(sin, inexact(__builtin_sinf(x), x))
EMU_UNARY(cos, inexact(__builtin_cosf(x), x))
EMU_UNARY(tan, inexact(__builtin_tanf(x), x))
EMU_UNARY(asin, __builtin_asinf(x))
EMU_UNARY(acos, __builtin_acosf(x))
EMU_UNARY(atan, __builtin_atanf(x))
EMU_UNARY(sinh, inexact(__builtin_sinhf(x), x))
EMU_UNARY(cosh, inexact(__builtin_coshf(x), x))
EMU_UNARY(tanh, inexact(__builtin_tanhf(x), x))
EMU_UNARY(asinh, __builtin_asinhf(x))
EMU_UNARY(acosh, __builtin_acoshf(x))
EMU_UNARY(atanh, __builtin_atanhf(x))
EMU_UNARY(fabs, __builtin_fabsf(x))
EMU_UNARY(floor, __builtin_floorf(x))
EMU_UNARY(ceil, __builtin_ceilf(x))
EMU_UNARY(round, __builtin_roundf(x))
EMU_UNARY(rint, __builtin_rintf(x))
EMU_UNARY(trunc, __builtin_truncf(x))
EMU_UNARY(fract, __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f))
EMU_UNARY(sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == x ? x : 0.0f)
EMU_UNARY(saturate, __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f))
EMU_BINARY(fmin, __builtin_fminf(x, y))
EMU_BINARY(fmax, __builtin_fmaxf(x, y))
EMU_BINARY(fmod, __builtin_fmodf(x, y))
EMU_BINARY(pow, __builtin_powf(x, y))
EMU_BINARY(powr, __builtin_powf(x, y))
EMU_BINARY(atan2, __builtin_atan2f(x, y))
EMU_BINARY(copysign, __builtin_copysignf(x, y))
EMU_BINARY(fdim, __builtin_fdimf(x, y))
EMU_BINARY(step, y < x ? 0.0f : 1.0f)
EMU_TEST(isnan, x != x)
EMU_TEST(isinf, __builtin_fabsf(x) == __builtin_inff())
EMU_TEST(isfinite, __builtin_fabsf(x) < __builtin_inff())
EMU_TEST(isnormal, __builtin_fabsf(x) < __builtin_inff() && __builtin_fabsf(x) >= 0x1p-126f)
EMU_TEST(signbit, (as_type<uint>(x) >> 31) != 0)
#undef EMU_UNARY
#undef EMU_BINARY
#undef EMU_TEST

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
// The double sum goes to float rounding to odd, which the second rounding, to half, cannot spoil.
inline half fma(half a, half b, half c) {
  const double sum = double(float(a)) * double(float(b)) + double(float(c));
  float odd = float(sum);
  const uint bits = as_type<uint>(odd);
  if (double(odd) != sum && (bits & 1u) == 0)
    odd = as_type<float>((double(odd) < sum) == (odd > 0.0f) ? bits | 1u : bits - 1u);
  return half(odd);
}
template <class T, int N>
inline vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = fma(a[i], b[i], c[i]);
  return r;
}
inline float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
inline half ldexp(half x, int e) { return half(__builtin_ldexpf(float(x), e)); }
inline float frexp(float x, int &e) { return __builtin_frexpf(x, &e); }
inline float modf(float x, float &whole) { return __builtin_modff(x, &whole); }
inline int ilogb(float x) { return __builtin_ilogbf(x); }

// Both arguments must have one type: a mixed call is ambiguous in Metal.
template <class T>
inline enable_if_t<is_integral<T>::value, T> max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
inline enable_if_t<is_floating_point<T>::value, T> max(T a, T b) {
  return fmax(a, b);
}
template <class T>
inline enable_if_t<is_floating_point<T>::value, T> min(T a, T b) {
  return fmin(a, b);
}
template <class T, int N>
inline vec<T, N> max(vec<T, N> a, vec<T, N> b) {
  return zip(a, b, [](T p, T q) { return max(p, q); });
}
template <class T, int N>
inline vec<T, N> min(vec<T, N> a, vec<T, N> b) {
  return zip(a, b, [](T p, T q) { return min(p, q); });
}
template <class T>
inline T max3(T a, T b, T c) {
  return max(a, max(b, c));
}
template <class T>
inline T min3(T a, T b, T c) {
  return min(a, min(b, c));
}
template <class T>
inline T clamp(T x, T low, T high) {
  return min(max(x, low), high);
}
template <class T, int N>
inline vec<T, N> clamp(vec<T, N> x, T low, T high) {
  return min(max(x, vec<T, N>(low)), vec<T, N>(high));
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> abs(T x) {
  return x < T(0) ? T(-x) : x;
}
template <class T>
inline enable_if_t<is_floating_point<T>::value, T> abs(T x) {
  return fabs(x);
}
template <class T, int N>
inline vec<T, N> abs(vec<T, N> v) {
  return map(v, [](T x) { return abs(x); });
}
template <class T>
inline T mix(T a, T b, T t) {
  return T(a + (b - a) * t);
}
template <class T>
inline T select(T otherwise, T chosen, bool condition) {
  return condition ? chosen : otherwise;
}
template <class T, int N>
inline vec<T, N> select(vec<T, N> otherwise, vec<T, N> chosen, vec<bool, N> condition) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = condition[i] ? chosen[i] : otherwise[i];
  return r;
}
template <int N>
inline bool any(vec<bool, N> v) {
  bool r = false;
  for (int i = 0; i < N; ++i) r |= v[i];
  return r;
}
template <int N>
inline bool all(vec<bool, N> v) {
  bool r = true;
  for (int i = 0; i < N; ++i) r &= v[i];
  return r;
}
template <class T, int N>
inline T dot(vec<T, N> a, vec<T, N> b) {
  T sum = T(a[0] * b[0]);
  for (int i = 1; i < N; ++i) sum = T(sum + T(a[i] * b[i]));
  return sum;
}
template <class T, int N>
inline T length(vec<T, N> v) {
  return sqrt(dot(v, v));
}

// Integers.
template <class T>
inline enable_if_t<is_integral<T>::value, T> popcount(T x) {
  return T(__builtin_popcountll(uint64_t(x) & (~uint64_t(0) >> (64 - 8 * sizeof(T)))));
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> clz(T x) {
  const uint64_t word = uint64_t(x) & (~uint64_t(0) >> (64 - 8 * sizeof(T)));
  return T(word ? __builtin_clzll(word) - (64 - 8 * int(sizeof(T))) : 8 * int(sizeof(T)));
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> ctz(T x) {
  return T(x ? __builtin_ctzll(uint64_t(x)) : 8 * int(sizeof(T)));
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> reverse_bits(T x) {
  T r = 0;
  for (unsigned i = 0; i < 8 * sizeof(T); ++i) r = T(r | T(((x >> i) & T(1)) << (8 * sizeof(T) - 1 - i)));
  return r;
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> rotate(T x, T by) {
  const unsigned bits = 8 * sizeof(T), n = unsigned(by) % bits;
  const uint64_t word = uint64_t(x) & (~uint64_t(0) >> (64 - bits));
  return n ? T((word << n) | (word >> (bits - n))) : x;
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> extract_bits(T x, uint offset, uint bits) {
  if (bits == 0) return T(0);
  const unsigned width = 8 * sizeof(T);
  return T(T(uint64_t(x) << (width - offset - bits)) >> (width - bits));
}
template <class T>
inline enable_if_t<is_integral<T>::value, T> insert_bits(T base, T insert, uint offset, uint bits) {
  const uint64_t mask = bits == 0 ? 0 : (~uint64_t(0) >> (64 - bits)) << offset;
  return T((uint64_t(base) & ~mask) | ((uint64_t(insert) << offset) & mask));
}
inline int mulhi(int a, int b) { return int((int64_t(a) * int64_t(b)) >> 32); }
inline uint mulhi(uint a, uint b) { return uint((uint64_t(a) * uint64_t(b)) >> 32); }
inline ulong mulhi(ulong a, ulong b) { return ulong((static_cast<unsigned __int128>(a) * b) >> 64); }
inline int mul24(int a, int b) { return int(uint(a) * uint(b)); }
inline uint mul24(uint a, uint b) { return a * b; }
inline int mad24(int a, int b, int c) { return int(uint(a) * uint(b) + uint(c)); }
inline uint mad24(uint a, uint b, uint c) { return a * b + c; }
template <class T>
inline enable_if_t<is_integral<T>::value, T> absdiff(T a, T b) {
  return a < b ? T(b - a) : T(a - b);
}

// Metal's fast:: and precise:: variants differ in accuracy only; here both are the precise ones.
namespace precise {
using namespace metal;
}
namespace fast {
using namespace metal;
}

}  // namespace metal

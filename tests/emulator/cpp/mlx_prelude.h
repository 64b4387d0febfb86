// What MLX puts before the text of every custom kernel (mlx/backend/metal/kernels/utils.h), as far as
// kernels use it: the type names, Limits, ceildiv and elem_to_loc. The bfloat overloads that MLX adds to
// the metal namespace are part of msl_math.h and msl_simd.h.
#pragma once

#include "msl_atomic.h"
#include "msl_matrix.h"

#define METAL_FUNC inline
#define MTL_CONST static constexpr const
#define MLX_MTL_PRAGMA_UNROLL
#define MLX_MTL_LOOP_UNROLL

using namespace metal;

typedef half float16_t;
typedef bfloat bfloat16_t;

template <class T>
struct Limits {
  static constexpr T max = metal::numeric_limits<T>::max();
  static constexpr T min = metal::numeric_limits<T>::min();
  static constexpr T finite_max = metal::numeric_limits<T>::max();
  static constexpr T finite_min = metal::numeric_limits<T>::min();
};
template <class T>
struct RealLimits {
  static constexpr T max = metal::numeric_limits<T>::infinity();
  static constexpr T min = -metal::numeric_limits<T>::infinity();
  static constexpr T finite_max = metal::numeric_limits<T>::max();
  static constexpr T finite_min = -metal::numeric_limits<T>::max();
};
template <>
struct Limits<float> : RealLimits<float> {};
template <>
struct Limits<half> : RealLimits<half> {};
template <>
struct Limits<bfloat> : RealLimits<bfloat> {};
// gnu++14 wants a definition for members that are bound to references
template <class T>
constexpr T Limits<T>::max;
template <class T>
constexpr T Limits<T>::min;
template <class T>
constexpr T Limits<T>::finite_max;
template <class T>
constexpr T Limits<T>::finite_min;
template <class T>
constexpr T RealLimits<T>::max;
template <class T>
constexpr T RealLimits<T>::min;
template <class T>
constexpr T RealLimits<T>::finite_max;
template <class T>
constexpr T RealLimits<T>::finite_min;

template <class T, class U>
inline T ceildiv(T n, U m) {
  return (n + m - 1) / m;
}

template <class Index = int64_t>
inline Index elem_to_loc(Index element, const int *shape, const int64_t *strides, int ndim) {
  Index location = 0;
  for (int i = ndim - 1; i >= 0 && element > 0; --i) {
    location += (element % shape[i]) * Index(strides[i]);
    element /= shape[i];
  }
  return location;
}

// simdgroup_matrix: 8x8, two elements a lane. The lane map is undocumented by Apple; MLX relies on it on
// all GPU generations (mlx/backend/metal/kernels/steel/gemm/mma.h).
#pragma once

#include "msl_simd.h"

namespace metal {

struct MatrixPlace {
  unsigned row, column;  // of a lane's first element; the second is in the next column
};
constexpr MatrixPlace matrix_place(unsigned lane) {
  return {((lane / 4) & 4) + (lane / 2) % 4, ((lane / 4) & 2) * 2 + (lane % 2) * 2};
}

template <class T, int Columns = 8, int Rows = 8>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "simdgroup_matrix is 8x8");
  static_assert(is_floating_point<T>::value, "simdgroup_matrix of float, half or bfloat");
  vec<T, 2> elements;

  simdgroup_matrix() = default;
  // one value makes a diagonal matrix, as in Metal
  explicit simdgroup_matrix(T diagonal) {
    const MatrixPlace place = matrix_place(emu::current->lane);
    elements.x = place.row == place.column ? diagonal : T(0.0f);
    elements.y = place.row == place.column + 1 ? diagonal : T(0.0f);
  }
  vec<T, 2> &thread_elements() { return elements; }
  const vec<T, 2> &thread_elements() const { return elements; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int Columns, int Rows = Columns>
inline simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, Columns, Rows> r;
  r.elements = vec<T, 2>(value);
  return r;
}
template <class T, int Columns, int Rows = Columns>
inline simdgroup_matrix<T, Columns, Rows> make_diagonal_simdgroup_matrix(T value) {
  return simdgroup_matrix<T, Columns, Rows>(value);
}

// The lanes must agree on what is loaded or stored; only the checked build spends a meeting on it.
inline void matrix_access(const volatile void *base, ulong stride, const char *name, const char *file, unsigned line) {
#ifdef EMU_CHECKED
  struct Access {
    const volatile void *base;
    ulong stride;
  };
  emu::meet(Access{base, stride}, name, file, line, [=](Access *lanes, unsigned count) {
    for (unsigned i = 1; i < count; ++i)
      if (lanes[i].base != lanes[0].base || lanes[i].stride != lanes[0].stride)
        emu::stop(emu::fault_shuffle, file, line, "%s: lanes 0 and %u pass different addresses or strides", name, i);
  });
#endif
}

template <class T>
inline void simdgroup_load(simdgroup_matrix<T, 8, 8> &d, const T *source, ulong elements_per_row = 8,
                           vec<ulong, 2> origin = vec<ulong, 2>(0), bool transpose = false, EMU_SITE) {
  matrix_access(source, elements_per_row, "simdgroup_load", file, line);
  const MatrixPlace place = matrix_place(emu::current->lane);
  for (unsigned i = 0; i < 2; ++i) {
    const ulong row = transpose ? place.column + i : place.row, column = transpose ? place.row : place.column + i;
    d.elements[i] = source[(origin.y + row) * elements_per_row + origin.x + column];
  }
}
template <class T>
inline void simdgroup_store(simdgroup_matrix<T, 8, 8> a, T *target, ulong elements_per_row = 8,
                            vec<ulong, 2> origin = vec<ulong, 2>(0), bool transpose = false, EMU_SITE) {
  matrix_access(target, elements_per_row, "simdgroup_store", file, line);
  const MatrixPlace place = matrix_place(emu::current->lane);
  for (unsigned i = 0; i < 2; ++i) {
    const ulong row = transpose ? place.column + i : place.row, column = transpose ? place.row : place.column + i;
    target[(origin.y + row) * elements_per_row + origin.x + column] = a.elements[i];
  }
}

// d = a b + c. Products and sums in float, k ascending (pairwise if perturbed), rounded to the accumulator's type at
// the end.
template <class T, class A, class B>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<T, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a,
                                          const simdgroup_matrix<B, 8, 8> &b, const simdgroup_matrix<T, 8, 8> &c,
                                          EMU_SITE) {
  struct Operands {
    float a[2], b[2], c[2];
  };
  const Operands mine = {{float(a.elements.x), float(a.elements.y)},
                         {float(b.elements.x), float(b.elements.y)},
                         {float(c.elements.x), float(c.elements.y)}};
  const Operands result = emu::meet(
      mine, "simdgroup_multiply_accumulate", file, line, [=](Operands *lanes, unsigned count) {
        if (count != emu::simd_width)
          emu::stop(emu::fault_divergence, file, line, "simdgroup_multiply_accumulate in a simdgroup of %u lanes", count);
        float left[8][8], right[8][8], sum[8][8];
        for (unsigned lane = 0; lane < emu::simd_width; ++lane) {
          const MatrixPlace place = matrix_place(lane);
          for (unsigned i = 0; i < 2; ++i) {
            left[place.row][place.column + i] = lanes[lane].a[i];
            right[place.row][place.column + i] = lanes[lane].b[i];
            sum[place.row][place.column + i] = lanes[lane].c[i];
          }
        }
        for (unsigned row = 0; perturbed && row < 8; ++row)
          for (unsigned column = 0; column < 8; ++column) {
            float parts[8];
            for (unsigned k = 0; k < 8; ++k) parts[k] = left[row][k] * right[k][column];
            for (unsigned width = 4; width > 0; width /= 2)
              for (unsigned k = 0; k < width; ++k) parts[k] += parts[k + width];
            sum[row][column] += parts[0];
          }
        for (unsigned row = 0; !perturbed && row < 8; ++row)
          for (unsigned k = 0; k < 8; ++k)
            for (unsigned column = 0; column < 8; ++column) sum[row][column] += left[row][k] * right[k][column];
        for (unsigned lane = 0; lane < emu::simd_width; ++lane) {
          const MatrixPlace place = matrix_place(lane);
          for (unsigned i = 0; i < 2; ++i) lanes[lane].c[i] = sum[place.row][place.column + i];
        }
      });
  d.elements = vec<T, 2>(T(result.c[0]), T(result.c[1]));
}
template <class T, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<T, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a,
                               const simdgroup_matrix<B, 8, 8> &b, EMU_SITE) {
  const simdgroup_matrix<T, 8, 8> zero = make_filled_simdgroup_matrix<T, 8>(T(0.0f));
  simdgroup_multiply_accumulate(d, a, b, zero, file, line);
}

}  // namespace metal

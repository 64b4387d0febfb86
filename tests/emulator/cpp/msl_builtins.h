// The kernel's built-in arguments, named after their attributes.
#pragma once

#include "msl_types.h"
#include "runtime.h"

namespace emu {
namespace builtins {

struct Triple {
  unsigned x, y, z;
  template <class T, class = metal::enable_if_t<metal::is_integral<T>::value>>
  operator T() const {
    return T(x);
  }
  template <class T>
  operator metal::vec<T, 2>() const {
    return {T(x), T(y)};
  }
  template <class T>
  operator metal::vec<T, 3>() const {
    return {T(x), T(y), T(z)};
  }
};
inline Triple triple(const unsigned (&v)[3]) { return {v[0], v[1], v[2]}; }

inline Triple thread_position_in_grid() {
  const unsigned(&tg)[3] = group.position, (&n)[3] = group.nominal, (&p)[3] = current->position;
  return {tg[0] * n[0] + p[0], tg[1] * n[1] + p[1], tg[2] * n[2] + p[2]};
}
inline Triple thread_position_in_threadgroup() { return triple(current->position); }
inline Triple threadgroup_position_in_grid() { return triple(group.position); }
inline Triple threads_per_grid() { return triple(group.grid); }
inline Triple grid_size() { return triple(group.grid); }
inline Triple grid_origin() { return {0, 0, 0}; }
inline Triple threadgroups_per_grid() { return triple(group.count); }
inline Triple threads_per_threadgroup() { return triple(group.size); }
inline Triple dispatch_threads_per_threadgroup() { return triple(group.nominal); }
inline unsigned thread_index_in_threadgroup() { return current->index; }
inline unsigned thread_index_in_simdgroup() { return current->lane; }
inline unsigned simdgroup_index_in_threadgroup() { return current->simdgroup->index; }
inline unsigned simdgroups_per_threadgroup() { return group.simdgroups; }
inline unsigned dispatch_simdgroups_per_threadgroup() {
  return (group.nominal[0] * group.nominal[1] * group.nominal[2] + simd_width - 1) / simd_width;
}
inline unsigned threads_per_simdgroup() { return simd_width; }
inline unsigned thread_execution_width() { return simd_width; }
inline unsigned thread_index_in_quadgroup() { return current->lane % 4; }
inline unsigned quadgroup_index_in_threadgroup() { return current->index / 4; }
inline unsigned quadgroups_per_threadgroup() { return (group.threads + 3) / 4; }
inline unsigned dispatch_quadgroups_per_threadgroup() {
  return (group.nominal[0] * group.nominal[1] * group.nominal[2] + 3) / 4;
}

}  // namespace builtins
}  // namespace emu

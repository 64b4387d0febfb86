// Relaxed atomics. One OS thread runs all fibers and none is interrupted between two collective
// operations, so plain accesses are atomic here.
#pragma once

#include "msl_simd.h"

namespace metal {

enum memory_order { memory_order_relaxed, memory_order_acquire, memory_order_release, memory_order_acq_rel, memory_order_seq_cst };
enum thread_scope { thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device };

template <class T>
struct atomic {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 1, "atomic of 32 bits");
  T value;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
typedef atomic<ulong> atomic_ulong;
typedef atomic<bool> atomic_bool;

template <class T>
struct same {
  typedef T type;
};

template <class T>
EMU_UNCHECKED_ACCESS inline T atomic_load_explicit(const volatile atomic<T> *a, memory_order) {
  emu::atomic_access(a, sizeof(T), true, false);
  return a->value;
}
template <class T>
EMU_UNCHECKED_ACCESS inline void atomic_store_explicit(volatile atomic<T> *a, typename same<T>::type v, memory_order) {
  emu::atomic_access(a, sizeof(T), false, true);
  a->value = v;
}
#define EMU_FETCH(name, result)                                                                                     \
  template <class T>                                                                                                \
  EMU_UNCHECKED_ACCESS inline T name(volatile atomic<T> *a, typename same<T>::type v, memory_order) {               \
    emu::atomic_access(a, sizeof(T), true, true);                                                                         \
    const T old = a->value;                                                                                         \
    a->value = T(result);                                                                                           \
    return old;                                                                                                     \
  }
EMU_FETCH(atomic_exchange_explicit, v)
EMU_FETCH(atomic_fetch_add_explicit, old + v)
EMU_FETCH(atomic_fetch_sub_explicit, old - v)
EMU_FETCH(atomic_fetch_max_explicit, old < v ? v : old)
EMU_FETCH(atomic_fetch_min_explicit, v < old ? v : old)
EMU_FETCH(atomic_fetch_and_explicit, old &v)
EMU_FETCH(atomic_fetch_or_explicit, old | v)
EMU_FETCH(atomic_fetch_xor_explicit, old ^ v)
#undef EMU_FETCH
template <class T>
EMU_UNCHECKED_ACCESS inline bool atomic_compare_exchange_weak_explicit(volatile atomic<T> *a, T *expected,
                                                                       typename same<T>::type desired, memory_order,
                                                                       memory_order) {
  emu::atomic_access(a, sizeof(T), true, true);
  const T old = a->value;
  if (old == *expected) {
    a->value = desired;
    return true;
  }
  *expected = old;
  return false;
}
inline void atomic_thread_fence(mem_flags, memory_order, thread_scope = thread_scope_device) {}

}  // namespace metal

// Barriers, simdgroup and quadgroup functions. Every lane of a simdgroup must reach the same call.
#pragma once

#include "msl_math.h"
#include "runtime.h"

namespace metal {

enum class mem_flags : unsigned {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(unsigned(a) | unsigned(b)); }

inline void threadgroup_barrier(mem_flags flags, EMU_SITE) { emu::threadgroup_wait(unsigned(flags), file, line); }

inline void simdgroup_barrier(mem_flags flags, EMU_SITE) {
  emu::meet(unsigned(flags), "simdgroup_barrier", file, line, [=](unsigned *lanes, unsigned count) {
    for (unsigned i = 1; i < count; ++i)
      if (lanes[i] != lanes[0])
        emu::stop(emu::fault_barrier_flags, file, line, "lanes pass different flags to one simdgroup_barrier");
    emu::simdgroup_fence(lanes[0]);
  });
}

#define EMU_REDUCTION(name, A, combined)                                                                \
  template <class T>                                                                                    \
  inline T name(T value, EMU_SITE) {                                                                    \
    static_assert(sizeof(T) <= 4, #name " takes 8-, 16- and 32-bit types");                             \
    return emu::meet(value, #name, file, line, [](T *lanes, unsigned count) {                           \
      A tree[emu::simd_width];                                                                          \
      for (unsigned i = 0; i < count; ++i) tree[i] = A(lanes[i]);                                       \
      for (unsigned i = 1; perturbed && i < count; ++i) {                                               \
        const A a = tree[0], b = tree[i];                                                               \
        tree[0] = combined;                                                                             \
      }                                                                                                 \
      for (unsigned width = count; !perturbed && width > 1; width = (width + 1) / 2)                    \
        for (unsigned i = 0; i < width / 2; ++i) {                                                      \
          const A a = tree[i], b = tree[i + (width + 1) / 2];                                           \
          tree[i] = combined;                                                                           \
        }                                                                                               \
      for (unsigned i = 0; i < count; ++i) lanes[i] = T(tree[0]);                                       \
    });                                                                                                 \
  }                                                                                                     \
  template <class T, int N>                                                                             \
  inline vec<T, N> name(vec<T, N> value, EMU_SITE) {                                                    \
    for (int i = 0; i < N; ++i) value[i] = name(value[i], file, line);                                  \
    return value;                                                                                       \
  }
// bfloat is reduced in float and rounded once, as MLX's overloads do.
template <class T>
struct accumulator {
  typedef T type;
};
template <>
struct accumulator<bfloat> {
  typedef float type;
};
EMU_REDUCTION(simd_sum, typename accumulator<T>::type, typename accumulator<T>::type(a + b))
EMU_REDUCTION(simd_product, typename accumulator<T>::type, typename accumulator<T>::type(a *b))
EMU_REDUCTION(simd_max, typename accumulator<T>::type, max(a, b))
EMU_REDUCTION(simd_min, typename accumulator<T>::type, min(a, b))
EMU_REDUCTION(simd_and, T, T(a &b))
EMU_REDUCTION(simd_or, T, T(a | b))
EMU_REDUCTION(simd_xor, T, T(a ^ b))
#undef EMU_REDUCTION

#define EMU_PREFIX(name, neutral, combined, inclusive)                                                  \
  template <class T>                                                                                    \
  inline T name(T value, EMU_SITE) {                                                                    \
    static_assert(sizeof(T) <= 4, #name " takes 8-, 16- and 32-bit types");                             \
    return emu::meet(value, #name, file, line, [](T *lanes, unsigned count) {                           \
      typedef typename accumulator<T>::type A;                                                          \
      A a = A(neutral);                                                                                 \
      for (unsigned i = 0; i < count; ++i) {                                                            \
        const A b = A(lanes[i]);                                                                        \
        if (!inclusive) lanes[i] = T(a);                                                                \
        a = A(combined);                                                                                \
        if (inclusive) lanes[i] = T(a);                                                                 \
      }                                                                                                 \
    });                                                                                                 \
  }
EMU_PREFIX(simd_prefix_exclusive_sum, 0, a + b, false)
EMU_PREFIX(simd_prefix_inclusive_sum, 0, a + b, true)
EMU_PREFIX(simd_prefix_exclusive_product, 1, a *b, false)
EMU_PREFIX(simd_prefix_inclusive_product, 1, a *b, true)
#undef EMU_PREFIX

// A shuffle: each lane names the lane it reads. `uniform` operands must agree over the simdgroup.
template <class T>
struct Shuffle {
  T value;
  unsigned operand;
};
constexpr unsigned keep_own = ~0u;

template <class T, class Source>
inline T shuffle(T value, unsigned operand, bool uniform, const char *name, const char *file, unsigned line,
                 Source source) {
  static_assert(sizeof(T) <= 16 && (sizeof(T) <= 4 || !is_arithmetic<T>::value), "no shuffle of 64-bit scalars");
  Shuffle<T> mine = {value, operand};
  return emu::meet(mine, name, file, line, [=](Shuffle<T> *lanes, unsigned count) {
           T taken[emu::simd_width];
           for (unsigned i = 0; i < count; ++i) {
             if (uniform && lanes[i].operand != lanes[0].operand)
               emu::stop(emu::fault_shuffle, file, line, "%s with different operands: %u in lane 0, %u in lane %u", name,
                         lanes[0].operand, lanes[i].operand, i);
             const unsigned from = source(i, lanes[i].operand);
             if (from != keep_own && from >= count)
               emu::stop(emu::fault_shuffle, file, line, "%s: lane %u reads lane %u of %u", name, i, from, count);
             taken[i] = lanes[from == keep_own ? i : from].value;
           }
           for (unsigned i = 0; i < count; ++i) lanes[i].value = taken[i];
         })
      .value;
}

#define EMU_SHUFFLE(name, uniform, from)                                                                \
  template <class T>                                                                                    \
  inline T name(T value, ushort operand, EMU_SITE) {                                                    \
    return shuffle(value, operand, uniform, #name, file, line,                                          \
                   [](unsigned lane, unsigned operand) -> unsigned { return from; });                   \
  }
EMU_SHUFFLE(simd_shuffle, false, operand)
EMU_SHUFFLE(simd_shuffle_xor, true, lane ^ operand)
EMU_SHUFFLE(simd_shuffle_down, true, lane + operand < emu::simd_width ? lane + operand : keep_own)
EMU_SHUFFLE(simd_shuffle_up, true, lane >= operand ? lane - operand : keep_own)
EMU_SHUFFLE(simd_shuffle_rotate_down, true, (lane + operand) % emu::simd_width)
EMU_SHUFFLE(simd_shuffle_rotate_up, true, (lane + emu::simd_width - operand % emu::simd_width) % emu::simd_width)
EMU_SHUFFLE(simd_broadcast, true, operand)
EMU_SHUFFLE(quad_shuffle, false, operand < 4 ? (lane & ~3u) + operand : emu::simd_width)
EMU_SHUFFLE(quad_shuffle_xor, true, operand < 4 ? lane ^ operand : emu::simd_width)
EMU_SHUFFLE(quad_shuffle_down, true, (lane & 3u) + operand < 4 ? lane + operand : keep_own)
EMU_SHUFFLE(quad_shuffle_up, true, (lane & 3u) >= operand ? lane - operand : keep_own)
EMU_SHUFFLE(quad_broadcast, true, operand < 4 ? (lane & ~3u) + operand : emu::simd_width)
#undef EMU_SHUFFLE

template <class T>
inline T simd_broadcast_first(T value, EMU_SITE) {
  return shuffle(value, 0, true, "simd_broadcast_first", file, line, [](unsigned, unsigned) -> unsigned { return 0; });
}
template <class T>
inline T simd_shuffle_and_fill_down(T value, T filling, ushort delta, EMU_SITE) {
  const T far = simd_shuffle(filling, (emu::current->lane + delta) % emu::simd_width, file, line);
  const T near = simd_shuffle_down(value, delta, file, line);
  return emu::current->lane + delta < emu::simd_width ? near : far;
}
template <class T>
inline T simd_shuffle_and_fill_up(T value, T filling, ushort delta, EMU_SITE) {
  const T far = simd_shuffle(filling, (emu::current->lane + emu::simd_width - delta) % emu::simd_width, file, line);
  const T near = simd_shuffle_up(value, delta, file, line);
  return emu::current->lane >= delta ? near : far;
}

inline bool simd_all(bool value, EMU_SITE) { return simd_and(uint(value), file, line) != 0; }
inline bool simd_any(bool value, EMU_SITE) { return simd_or(uint(value), file, line) != 0; }
struct simd_vote {
  typedef uint64_t vote_t;
  vote_t votes;
  constexpr explicit simd_vote(vote_t votes = 0) : votes(votes) {}
  explicit constexpr operator vote_t() const { return votes; }
  bool all() const { return votes == 0xFFFFFFFFu; }
  bool any() const { return votes != 0; }
};
inline simd_vote simd_ballot(bool value, EMU_SITE) {
  return simd_vote(simd_or(value ? 1u << emu::current->lane : 0u, file, line));
}
inline bool simd_is_first() { return emu::current->lane == 0; }
template <class T>
inline T quad_sum(T value, EMU_SITE) {
  value = T(value + quad_shuffle_xor(value, 1, file, line));
  return T(value + quad_shuffle_xor(value, 2, file, line));
}
template <class T>
inline T quad_max(T value, EMU_SITE) {
  value = max(value, quad_shuffle_xor(value, 1, file, line));
  return max(value, quad_shuffle_xor(value, 2, file, line));
}
template <class T>
inline T quad_min(T value, EMU_SITE) {
  value = min(value, quad_shuffle_xor(value, 1, file, line));
  return min(value, quad_shuffle_xor(value, 2, file, line));
}

}  // namespace metal

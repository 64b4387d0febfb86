// Metal's scalar, vector and packed types. Where Metal refuses a conversion, so do these.
#pragma once

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

namespace metal {

template <class T, T v>
struct integral_constant {
  static constexpr T value = v;
  typedef T value_type;
  typedef integral_constant type;
  constexpr operator T() const { return v; }
  constexpr T operator()() const { return v; }
};
template <bool b>
using bool_constant = integral_constant<bool, b>;
typedef bool_constant<true> true_type;
typedef bool_constant<false> false_type;

template <bool b, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  typedef T type;
};
template <bool b, class T = void>
using enable_if_t = typename enable_if<b, T>::type;

template <bool b, class T, class F>
struct conditional {
  typedef T type;
};
template <class T, class F>
struct conditional<false, T, F> {
  typedef F type;
};
template <bool b, class T, class F>
using conditional_t = typename conditional<b, T, F>::type;

template <class T, class U>
struct is_same : false_type {};
template <class T>
struct is_same<T, T> : true_type {};
template <class T, class U>
constexpr bool is_same_v = is_same<T, U>::value;

template <class T>
struct remove_cv {
  typedef T type;
};
template <class T>
struct remove_cv<const T> : remove_cv<T> {};
template <class T>
struct remove_cv<volatile T> : remove_cv<T> {};
template <class T>
using remove_cv_t = typename remove_cv<T>::type;
template <class T>
struct remove_reference {
  typedef T type;
};
template <class T>
struct remove_reference<T &> {
  typedef T type;
};
template <class T>
struct remove_reference<T &&> {
  typedef T type;
};
template <class T>
using remove_reference_t = typename remove_reference<T>::type;
template <class T>
struct is_pointer : false_type {};
template <class T>
struct is_pointer<T *> : true_type {};
template <class T>
struct remove_pointer {
  typedef T type;
};
template <class T>
struct remove_pointer<T *> {
  typedef T type;
};
template <class T>
using remove_pointer_t = typename remove_pointer<T>::type;
template <class...>
using void_t = void;

struct bfloat;

// clang-format off
template <class T> struct is_integer : false_type {};
template <> struct is_integer<bool> : true_type {};
template <> struct is_integer<char> : true_type {};
template <> struct is_integer<signed char> : true_type {};
template <> struct is_integer<unsigned char> : true_type {};
template <> struct is_integer<short> : true_type {};
template <> struct is_integer<unsigned short> : true_type {};
template <> struct is_integer<int> : true_type {};
template <> struct is_integer<unsigned> : true_type {};
template <> struct is_integer<long> : true_type {};
template <> struct is_integer<unsigned long> : true_type {};
template <class T> struct is_real : false_type {};
template <> struct is_real<float> : true_type {};
template <> struct is_real<half> : true_type {};
template <> struct is_real<bfloat> : true_type {};
// clang-format on
template <class T>
struct is_integral : is_integer<remove_cv_t<T>> {};
template <class T>
constexpr bool is_integral_v = is_integral<T>::value;
template <class T>
struct is_floating_point : is_real<remove_cv_t<T>> {};
template <class T>
constexpr bool is_floating_point_v = is_floating_point<T>::value;
template <class T>
struct is_arithmetic : bool_constant<is_integral<T>::value || is_floating_point<T>::value> {};
template <class T>
constexpr bool is_arithmetic_v = is_arithmetic<T>::value;
template <class T>
struct is_signed : bool_constant<(T(-1) < T(0))> {};
template <class T>
struct is_unsigned : bool_constant<is_integral<T>::value && !(T(-1) < T(0))> {};

template <class To, class From>
constexpr To as_type(From value) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs types of equal size");
  return __builtin_bit_cast(To, value);
}

// bfloat. It converts by itself to float, integers and bool; from integers; never from or to another
// floating-point type, which Metal refuses too. The compilers' own __bf16 would accept all of that.
struct bfloat {
  unsigned short bits;

  bfloat() = default;
  template <class I, class = enable_if_t<is_integral<I>::value>>
  constexpr bfloat(I value) : bits(rounded(float(value))) {}
  constexpr explicit bfloat(float value) : bits(rounded(value)) {}
  constexpr explicit bfloat(half value) : bits(rounded(float(value))) {}

  constexpr operator float() const { return as_type<float>(uint(bits) << 16); }
  constexpr explicit operator half() const { return half(float(*this)); }
  template <class T, class = enable_if_t<is_same<T, half>::value>, class = void>
  operator T() const = delete;
  template <class I, class = enable_if_t<is_integral<I>::value>>
  constexpr operator I() const {
    return I(float(*this));
  }

  // Round to nearest, ties to even; a NaN stays one.
  static constexpr unsigned short rounded(float value) {
    const uint word = as_type<uint>(value);
    if ((word & 0x7FFFFFFFu) > 0x7F800000u) return (unsigned short)((word >> 16) | 0x40u);
    return (unsigned short)((word + 0x7FFFu + ((word >> 16) & 1u)) >> 16);
  }

  constexpr bfloat operator-() const { return as_type<bfloat>((unsigned short)(bits ^ 0x8000u)); }
  constexpr bfloat operator+() const { return *this; }
  constexpr bool operator!() const { return float(*this) == 0.0f; }
#define EMU_COMPOUND(op)                                             \
  constexpr bfloat &operator op##=(bfloat other) {                   \
    return *this = bfloat(float(*this) op float(other));             \
  }                                                                  \
  bfloat &operator op##=(float) = delete;                            \
  bfloat &operator op##=(half) = delete;                             \
  template <class I, class = enable_if_t<is_integral<I>::value>>     \
  constexpr bfloat &operator op##=(I other) {                        \
    return *this = bfloat(float(*this) op float(bfloat(other)));     \
  }
  EMU_COMPOUND(+)
  EMU_COMPOUND(-)
  EMU_COMPOUND(*)
  EMU_COMPOUND(/)
#undef EMU_COMPOUND
};

#define EMU_ARITHMETIC(op, R)                                                                              \
  constexpr R operator op(bfloat a, bfloat b) { return R(float(a) op float(b)); }                          \
  constexpr conditional_t<is_same<R, bool>::value, bool, float> operator op(bfloat a, float b) {           \
    return float(a) op b;                                                                                  \
  }                                                                                                        \
  constexpr conditional_t<is_same<R, bool>::value, bool, float> operator op(float a, bfloat b) {           \
    return a op float(b);                                                                                  \
  }                                                                                                        \
  template <class I, class = enable_if_t<is_integral<I>::value>>                                           \
  constexpr R operator op(bfloat a, I b) {                                                                 \
    return R(float(a) op float(bfloat(b)));                                                                \
  }                                                                                                        \
  template <class I, class = enable_if_t<is_integral<I>::value>>                                           \
  constexpr R operator op(I a, bfloat b) {                                                                 \
    return R(float(bfloat(a)) op float(b));                                                                \
  }                                                                                                        \
  void operator op(bfloat, half) = delete;                                                                 \
  void operator op(half, bfloat) = delete;
EMU_ARITHMETIC(+, bfloat)
EMU_ARITHMETIC(-, bfloat)
EMU_ARITHMETIC(*, bfloat)
EMU_ARITHMETIC(/, bfloat)
EMU_ARITHMETIC(==, bool)
EMU_ARITHMETIC(!=, bool)
EMU_ARITHMETIC(<, bool)
EMU_ARITHMETIC(<=, bool)
EMU_ARITHMETIC(>, bool)
EMU_ARITHMETIC(>=, bool)
#undef EMU_ARITHMETIC

// Vectors. A swizzle of several components (v.xy) is rewritten by preprocess.py to swizzle<0, 1>() and
// gives a value, so it can be read but not assigned to.
template <class T, int N>
struct vec;
template <class T, int N>
struct packed_vec;

#define EMU_SWIZZLES(T)                                                                                   \
  T &operator[](int i) { return (&x)[i]; }                                                                \
  constexpr const T &operator[](int i) const { return (&x)[i]; }                                          \
  template <int I, int J>                                                                                 \
  constexpr const vec<T, 2> swizzle() const {                                                             \
    return vec<T, 2>((*this)[I], (*this)[J]);                                                             \
  }                                                                                                       \
  template <int I, int J, int K>                                                                          \
  constexpr const vec<T, 3> swizzle() const {                                                             \
    return vec<T, 3>((*this)[I], (*this)[J], (*this)[K]);                                                 \
  }                                                                                                       \
  template <int I, int J, int K, int L>                                                                   \
  constexpr const vec<T, 4> swizzle() const {                                                             \
    return vec<T, 4>((*this)[I], (*this)[J], (*this)[K], (*this)[L]);                                     \
  }

template <class T, class F>
inline auto map(vec<T, 2> a, F f) -> vec<decltype(f(a.x)), 2> {
  return {f(a.x), f(a.y)};
}
template <class T, class F>
inline auto map(vec<T, 3> a, F f) -> vec<decltype(f(a.x)), 3> {
  return {f(a.x), f(a.y), f(a.z)};
}
template <class T, class F>
inline auto map(vec<T, 4> a, F f) -> vec<decltype(f(a.x)), 4> {
  return {f(a.x), f(a.y), f(a.z), f(a.w)};
}
template <class T, class U, class F>
inline auto zip(vec<T, 2> a, vec<U, 2> b, F f) -> vec<decltype(f(a.x, b.x)), 2> {
  return {f(a.x, b.x), f(a.y, b.y)};
}
template <class T, class U, class F>
inline auto zip(vec<T, 3> a, vec<U, 3> b, F f) -> vec<decltype(f(a.x, b.x)), 3> {
  return {f(a.x, b.x), f(a.y, b.y), f(a.z, b.z)};
}
template <class T, class U, class F>
inline auto zip(vec<T, 4> a, vec<U, 4> b, F f) -> vec<decltype(f(a.x, b.x)), 4> {
  return {f(a.x, b.x), f(a.y, b.y), f(a.z, b.z), f(a.w, b.w)};
}

#define EMU_BINARY(op)                                          \
  friend inline vec operator op(vec a, vec b) {                 \
    return zip(a, b, [](T p, T q) { return T(p op q); });       \
  }                                                             \
  friend inline vec &operator op##=(vec &a, vec b) { return a = a op b; }
#define EMU_COMPARE(op)                                         \
  friend inline vec<bool, width> operator op(vec a, vec b) {    \
    return zip(a, b, [](T p, T q) { return bool(p op q); });    \
  }
// Friends inside the class: a scalar on either side converts to the vector's type, as in Metal.
#define EMU_OPERATORS                                                                  \
  EMU_BINARY(+) EMU_BINARY(-) EMU_BINARY(*) EMU_BINARY(/) EMU_BINARY(%)                \
  EMU_BINARY(&) EMU_BINARY(|) EMU_BINARY(^) EMU_BINARY(<<) EMU_BINARY(>>)              \
  EMU_COMPARE(==) EMU_COMPARE(!=) EMU_COMPARE(<) EMU_COMPARE(<=) EMU_COMPARE(>)        \
  EMU_COMPARE(>=) EMU_COMPARE(&&) EMU_COMPARE(||)                                      \
  friend inline vec operator-(vec a) { return map(a, [](T p) { return T(-p); }); }     \
  friend inline vec operator~(vec a) { return map(a, [](T p) { return T(~p); }); }     \
  friend inline vec<bool, width> operator!(vec a) { return map(a, [](T p) { return !p; }); }

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  T x, y;
  static constexpr int width = 2;
  vec() = default;
  constexpr vec(T s) : x(s), y(s) {}
  constexpr vec(T x, T y) : x(x), y(y) {}
  template <class U>
  constexpr explicit vec(vec<U, 2> v) : x(T(v.x)), y(T(v.y)) {}
  EMU_SWIZZLES(T)
  EMU_OPERATORS
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  T x, y, z;
  T padding;  // written with the rest, so that copying a vector reads nothing uninitialised
  static constexpr int width = 3;
  vec() = default;
  constexpr vec(T s) : x(s), y(s), z(s), padding(s) {}
  constexpr vec(T x, T y, T z) : x(x), y(y), z(z), padding(z) {}
  constexpr vec(vec<T, 2> v, T z) : x(v.x), y(v.y), z(z), padding(z) {}
  constexpr vec(T x, vec<T, 2> v) : x(x), y(v.x), z(v.y), padding(v.y) {}
  template <class U>
  constexpr explicit vec(vec<U, 3> v) : x(T(v.x)), y(T(v.y)), z(T(v.z)), padding(T(v.z)) {}
  EMU_SWIZZLES(T)
  EMU_OPERATORS
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  T x, y, z, w;
  static constexpr int width = 4;
  vec() = default;
  constexpr vec(T s) : x(s), y(s), z(s), w(s) {}
  constexpr vec(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}
  constexpr vec(vec<T, 2> a, vec<T, 2> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
  constexpr vec(vec<T, 2> a, T z, T w) : x(a.x), y(a.y), z(z), w(w) {}
  constexpr vec(T x, T y, vec<T, 2> b) : x(x), y(y), z(b.x), w(b.y) {}
  constexpr vec(T x, vec<T, 2> b, T w) : x(x), y(b.x), z(b.y), w(w) {}
  constexpr vec(vec<T, 3> a, T w) : x(a.x), y(a.y), z(a.z), w(w) {}
  constexpr vec(T x, vec<T, 3> a) : x(x), y(a.x), z(a.y), w(a.z) {}
  template <class U>
  constexpr explicit vec(vec<U, 4> v) : x(T(v.x)), y(T(v.y)), z(T(v.z)), w(T(v.w)) {}
  EMU_SWIZZLES(T)
  EMU_OPERATORS
};
#undef EMU_SWIZZLES
#undef EMU_OPERATORS
#undef EMU_COMPARE
#undef EMU_BINARY

template <class T>
struct packed_vec<T, 2> {
  T x, y;
  packed_vec() = default;
  constexpr packed_vec(T x, T y) : x(x), y(y) {}
  constexpr packed_vec(vec<T, 2> v) : x(v.x), y(v.y) {}
  constexpr operator vec<T, 2>() const { return {x, y}; }
  T &operator[](int i) { return (&x)[i]; }
  constexpr const T &operator[](int i) const { return (&x)[i]; }
};
template <class T>
struct packed_vec<T, 3> {
  T x, y, z;
  packed_vec() = default;
  constexpr packed_vec(T x, T y, T z) : x(x), y(y), z(z) {}
  constexpr packed_vec(vec<T, 3> v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator vec<T, 3>() const { return {x, y, z}; }
  T &operator[](int i) { return (&x)[i]; }
  constexpr const T &operator[](int i) const { return (&x)[i]; }
};
template <class T>
struct packed_vec<T, 4> {
  T x, y, z, w;
  packed_vec() = default;
  constexpr packed_vec(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}
  constexpr packed_vec(vec<T, 4> v) : x(v.x), y(v.y), z(v.z), w(v.w) {}
  constexpr operator vec<T, 4>() const { return {x, y, z, w}; }
  T &operator[](int i) { return (&x)[i]; }
  constexpr const T &operator[](int i) const { return (&x)[i]; }
};

#define EMU_NAMES(T)                                                             \
  typedef vec<T, 2> T##2;                                                        \
  typedef vec<T, 3> T##3;                                                        \
  typedef vec<T, 4> T##4;                                                        \
  typedef packed_vec<T, 2> packed_##T##2;                                        \
  typedef packed_vec<T, 3> packed_##T##3;                                        \
  typedef packed_vec<T, 4> packed_##T##4;
EMU_NAMES(bool)
EMU_NAMES(char)
EMU_NAMES(uchar)
EMU_NAMES(short)
EMU_NAMES(ushort)
EMU_NAMES(int)
EMU_NAMES(uint)
EMU_NAMES(long)
EMU_NAMES(ulong)
EMU_NAMES(half)
EMU_NAMES(float)
EMU_NAMES(bfloat)
#undef EMU_NAMES

// The limits are functions and constants at once in the standard library; Metal's are the same.
template <class T>
struct numeric_limits;
#define EMU_INTEGER_LIMITS(T, lowest_value, highest_value, binary)               \
  template <>                                                                    \
  struct numeric_limits<T> {                                                     \
    static constexpr int digits = binary;                                        \
    static constexpr T max() { return highest_value; }                           \
    static constexpr T min() { return lowest_value; }                            \
    static constexpr T lowest() { return lowest_value; }                         \
  };
EMU_INTEGER_LIMITS(bool, false, true, 1)
EMU_INTEGER_LIMITS(int8_t, -128, 127, 7)
EMU_INTEGER_LIMITS(uint8_t, 0, 255, 8)
EMU_INTEGER_LIMITS(int16_t, -32768, 32767, 15)
EMU_INTEGER_LIMITS(uint16_t, 0, 65535, 16)
EMU_INTEGER_LIMITS(int32_t, -2147483647 - 1, 2147483647, 31)
EMU_INTEGER_LIMITS(uint32_t, 0, 4294967295u, 32)
EMU_INTEGER_LIMITS(int64_t, -9223372036854775807l - 1, 9223372036854775807l, 63)
EMU_INTEGER_LIMITS(uint64_t, 0, 18446744073709551615ul, 64)
#undef EMU_INTEGER_LIMITS
#define EMU_REAL_LIMITS(T, word, mantissa, highest, smallest, eps, inf, nan)     \
  template <>                                                                    \
  struct numeric_limits<T> {                                                     \
    static constexpr int digits = mantissa;                                      \
    static constexpr T max() { return as_type<T>(word(highest)); }               \
    static constexpr T lowest() { return -as_type<T>(word(highest)); }           \
    static constexpr T min() { return as_type<T>(word(smallest)); }              \
    static constexpr T epsilon() { return as_type<T>(word(eps)); }               \
    static constexpr T infinity() { return as_type<T>(word(inf)); }              \
    static constexpr T quiet_NaN() { return as_type<T>(word(nan)); }             \
  };
EMU_REAL_LIMITS(float, uint, 24, 0x7F7FFFFF, 0x00800000, 0x34000000, 0x7F800000, 0x7FC00000)
EMU_REAL_LIMITS(half, ushort, 11, 0x7BFF, 0x0400, 0x1400, 0x7C00, 0x7E00)
EMU_REAL_LIMITS(bfloat, ushort, 8, 0x7F7F, 0x0080, 0x3C00, 0x7F80, 0x7FC0)
#undef EMU_REAL_LIMITS

}  // namespace metal

using metal::as_type;
using metal::bfloat;

#pragma GCC diagnostic ignored "-Wliteral-suffix"
constexpr half operator""h(long double value) { return half(float(value)); }
constexpr half operator""H(long double value) { return half(float(value)); }
constexpr bfloat operator""bf(long double value) { return bfloat(float(value)); }
constexpr bfloat operator""BF(long double value) { return bfloat(float(value)); }

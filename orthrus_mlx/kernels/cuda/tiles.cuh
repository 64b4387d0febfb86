// 16x8x16 matrix tiles of a warp (PTX mma.m16n8k16), vectors of 8 values, and where threads wait for each other.
//
// Lane l = 4 g + t holds row g and row g + 8 of A, column g of B, and of the sums: rows g, g + 8, columns 2 t, 2 t + 1.
// A product sums over k, so k may be numbered at will if A and B agree: a lane takes 8 neighbouring values of a row
// (16 bytes), which stand for k = 2 t, 2 t + 1, 2 t + 8, 2 t + 9 of two tiles.

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

// Two values in 32 bits. affine: scale * integer + bias, rounded once, of the integers in bits 0 to 3 and 16 to 19.
template <typename T>
struct Pair;

template <>
struct Pair<__nv_bfloat16> {
  static __device__ float low(unsigned pair) { return __uint_as_float(pair << 16); }
  static __device__ float high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
  static __device__ unsigned pack(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<unsigned*>(&pair);
  }
  static __device__ unsigned affine(unsigned integers, unsigned scales, unsigned biases) {
    // An integer below 128 stands in the last bits of 128 + itself.
    const unsigned raised = integers | 0x43004300u, zero = 0x43004300u;
    const __nv_bfloat162 values =
        __hsub2(reinterpret_cast<const __nv_bfloat162&>(raised), reinterpret_cast<const __nv_bfloat162&>(zero));
    const __nv_bfloat162 pair = __hfma2(
        values, reinterpret_cast<const __nv_bfloat162&>(scales), reinterpret_cast<const __nv_bfloat162&>(biases));
    return reinterpret_cast<const unsigned&>(pair);
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
  static __device__ float low(unsigned pair) { return __low2float(*reinterpret_cast<__half2*>(&pair)); }
  static __device__ float high(unsigned pair) { return __high2float(*reinterpret_cast<__half2*>(&pair)); }
  static __device__ unsigned pack(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<unsigned*>(&pair);
  }
  static __device__ unsigned affine(unsigned integers, unsigned scales, unsigned biases) {
    // An integer below 1,024 stands in the last bits of 1,024 + itself.
    const unsigned raised = integers | 0x64006400u, zero = 0x64006400u;
    const __half2 values = __hsub2(reinterpret_cast<const __half2&>(raised), reinterpret_cast<const __half2&>(zero));
    const __half2 pair =
        __hfma2(values, reinterpret_cast<const __half2&>(scales), reinterpret_cast<const __half2&>(biases));
    return reinterpret_cast<const unsigned&>(pair);
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

// Copies to shared memory that a thread starts, ends a group of, and waits for until its `newest` last groups are left.
// A load into registers would do for one; for many under way, the compiler has too few counters to wait for the oldest.
template <int BYTES>
__device__ void start_copy(void* to, const void* from) {
  const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(place), "l"(from), "n"(BYTES) : "memory");
  }
}
__device__ inline void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int NEWEST>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory");
}

// The shared memory that the launch asks for.
__device__ inline void* launch_memory() {
  extern __shared__ uint4 memory[];
  return memory;
}

// Has `bytes` bytes, a multiple of 16, brought into the second-level cache.
__device__ inline void prefetch(const char* from, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#else
  for (int i = 0; i < bytes; i += 128) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from + i) : "memory");
  }
#endif
}

// Where all thread blocks of a launch wait for each other; what one wrote before, all read after. The counter's top bit
// turns when the last has arrived, and its other bits are zero again.
struct Meeting {
  unsigned* counter;
  unsigned before;

  __device__ void arrive() {
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      before = atomicAdd(counter, blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u);
    }
  }
  __device__ void wait() {
    if (threadIdx.x == 0) {
      unsigned now, polls = 0;
      do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
        // Some ten seconds: blocks that are not all on the device would wait for ever.
        if (++polls == 1u << 24) {
          __trap();
        }
      } while (((now ^ before) & 0x80000000u) == 0);
      __threadfence();
    }
    __syncthreads();
  }
};

// The 128 threads of a team, of which a thread block has two.
__device__ inline void meet_team() {
  asm volatile("bar.sync %0, 128;" ::"r"(1 + threadIdx.x / 128) : "memory");
}

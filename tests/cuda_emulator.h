// Runs the body of a CUDA kernel on the CPU: a thread is a fiber, and warps and blocks meet where the hardware lets them.
// What is here is what `orthrus_mlx/kernels/cuda` uses. A matrix tile adds its products in ascending order of k.

#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

using std::min;

struct uint4 {
  unsigned x, y, z, w;
};
struct uint2 {
  unsigned x, y;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
struct Index {
  int x, y, z;
};

inline float widened(unsigned half) {
  const unsigned bits = half << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline unsigned short narrowed(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
struct __nv_bfloat16 {
  unsigned short bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value) : bits(narrowed(value)) {}
  explicit operator float() const { return widened(bits); }
};

// Threads --------------------------------------------------------------------------------------------

// Bytes that a thread has started to copy: they arrive as late as they may, when they are waited for.
struct Copy {
  void* to;
  const void* from;
  int bytes;
};
struct Fiber {
  std::vector<std::vector<Copy>> copies;
  ucontext_t context;
  std::vector<char> stack;
  bool done;
  Index place;
};
struct Warp {
  int meetings = 0, present = 0;
  unsigned a[32][4], b[32][2];
  float value[32], result[32][4];
};

// Where threads of a block wait: all of them, or one of two teams of 128.
struct Barrier {
  int meetings = 0, waiting = 0;
};

// Blocks that wait for each other run at a time, each in a thread of the CPU; so these are each block's own.
static thread_local std::vector<Fiber> fibers;
static thread_local std::vector<Warp> warps;
static thread_local ucontext_t scheduler;
static thread_local Index blockIdx;
static thread_local int current, alive;
alignas(16) static thread_local char workspace_memory[WORKSPACE];
static thread_local Barrier everyone, teams[2];
static Index gridDim;
static std::function<void()> body;

#define threadIdx (fibers[current].place)
#define __shared__ static thread_local
#define __device__

static void others_run() {
  swapcontext(&fibers[current].context, &scheduler);
}
static void pass(Barrier& barrier, int threads) {
  const int mine = barrier.meetings;
  if (++barrier.waiting == threads) {
    barrier.waiting = 0;
    barrier.meetings++;
  }
  while (barrier.meetings == mine) {
    others_run();
  }
}
static void __syncthreads() {
  pass(everyone, alive);
}
static void meet_team() {
  pass(teams[threadIdx.x / 128], 128);
}
static void meet(Warp& warp, const std::function<void()>& last) {
  const int mine = warp.meetings;
  if (++warp.present == 32) {
    last();
    warp.present = 0;
    warp.meetings++;
  }
  while (warp.meetings == mine) {
    others_run();
  }
}
static void fiber() {
  body();
  fibers[current].done = true;
  alive--;
  if (alive > 0 && everyone.waiting == alive) {
    everyone.waiting = 0;
    everyone.meetings++;
  }
  others_run();
}
static void run_block(Index place, int threads) {
  blockIdx = place;
  warps.assign(threads / 32, Warp());
  fibers.resize(threads);
  everyone = teams[0] = teams[1] = Barrier();
  alive = threads;
  std::memset(workspace_memory, 0x7f, sizeof workspace_memory);
  for (int i = 0; i < threads; i++) {
    Fiber& one = fibers[i];
    one.stack.resize(64 << 10);
    getcontext(&one.context);
    one.context.uc_stack.ss_sp = one.stack.data();
    one.context.uc_stack.ss_size = one.stack.size();
    one.context.uc_link = nullptr;
    one.copies.assign(1, {});
    one.done = false;
    one.place = {i, 0, 0};
    makecontext(&one.context, fiber, 0);
  }
  while (alive > 0) {
    for (current = 0; current < threads; current++) {
      if (!fibers[current].done) {
        swapcontext(&scheduler, &fibers[current].context);
      }
    }
  }
}
static void launch(Index grid, int threads, std::function<void()> kernel) {
  body = kernel;
  gridDim = grid;
  std::vector<std::thread> blocks;
  for (int block = 0; block < grid.x * grid.y * grid.z; block++) {
    const Index place{block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
    blocks.emplace_back(run_block, place, threads);
  }
  for (std::thread& block : blocks) {
    block.join();
  }
}

// As in `tiles.cuh`.
struct Meeting {
  unsigned* counter;
  unsigned before;

  void arrive() {
    __syncthreads();
    if (threadIdx.x == 0) {
      before = std::atomic_ref(*counter).fetch_add(blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u);
    }
  }
  void wait() {
    if (threadIdx.x == 0) {
      while (((std::atomic_ref(*counter).load() ^ before) & 0x80000000u) == 0) {
        std::this_thread::yield();
      }
    }
    __syncthreads();
  }
};

// Warp functions and `tiles.cuh` ---------------------------------------------------------------------

static float __shfl_xor_sync(unsigned, float value, int distance) {
  Warp& warp = warps[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  warp.value[lane] = value;
  meet(warp, [&] {
    for (int i = 0; i < 32; i++) {
      warp.result[i][0] = warp.value[i ^ distance];
    }
  });
  const float found = warp.result[lane][0];
  meet(warp, [] {});
  return found;
}

template <typename T>
struct Pair;

template <>
struct Pair<__nv_bfloat16> {
  static float low(unsigned pair) { return widened(pair & 0xffff); }
  static float high(unsigned pair) { return widened(pair >> 16); }
  static unsigned pack(float low, float high) { return narrowed(low) | static_cast<unsigned>(narrowed(high)) << 16; }
  static unsigned affine(unsigned integers, unsigned scales, unsigned biases) {
    return pack(std::fma(low(scales), float(integers & 15), low(biases)),
                std::fma(high(scales), float(integers >> 16 & 15), high(biases)));
  }
  // The places of PTX's mma.m16n8k16: lane 4 g + t.
  static void multiply(
      float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    Warp& warp = warps[threadIdx.x / 32];
    const int lane = threadIdx.x % 32;
    const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    std::memcpy(warp.a[lane], a, sizeof a);
    std::memcpy(warp.b[lane], b, sizeof b);
    meet(warp, [&] {
      float left[16][16], right[16][8];
      for (int i = 0; i < 32; i++) {
        const int g = i / 4, t = i % 4;
        for (int half = 0; half < 2; half++) {
          auto value = [&](unsigned pair) { return widened(half ? pair >> 16 : pair & 0xffff); };
          left[g][2 * t + half] = value(warp.a[i][0]);
          left[g + 8][2 * t + half] = value(warp.a[i][1]);
          left[g][2 * t + 8 + half] = value(warp.a[i][2]);
          left[g + 8][2 * t + 8 + half] = value(warp.a[i][3]);
          right[2 * t + half][g] = value(warp.b[i][0]);
          right[2 * t + 8 + half][g] = value(warp.b[i][1]);
        }
      }
      for (int i = 0; i < 32; i++) {
        for (int e = 0; e < 4; e++) {
          warp.result[i][e] = 0;
          for (int k = 0; k < 16; k++) {
            warp.result[i][e] += left[i / 4 + 8 * (e / 2)][k] * right[k][2 * (i % 4) + e % 2];
          }
        }
      }
    });
    for (int e = 0; e < 4; e++) {
      sums[e] += warp.result[lane][e];
    }
    meet(warp, [] {});
  }
};

template <typename T>
void multiply_32(float (&sums)[4], const uint4& low, const uint4& high, const uint4& column) {
  Pair<T>::multiply(sums, low.x, high.x, low.y, high.y, column.x, column.y);
  Pair<T>::multiply(sums, low.z, high.z, low.w, high.w, column.z, column.w);
}
template <typename T>
uint4 load_8(const T* from, bool valid) {
  return valid ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
}
template <int BYTES>
void start_copy(void* to, const void* from) {
  // The CPU's arrays begin at multiples of 8 only.
  if (reinterpret_cast<uintptr_t>(to) % BYTES || reinterpret_cast<uintptr_t>(from) % min(BYTES, 8)) {
    std::abort();
  }
  fibers[current].copies.back().push_back({to, from, BYTES});
}
static void end_copies() {
  fibers[current].copies.push_back({});
}
template <int NEWEST>
void wait_for_copies() {
  auto& groups = fibers[current].copies;
  while (groups.size() > NEWEST + 1) {
    for (const Copy& copy : groups.front()) {
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}
static void* launch_memory() {
  return workspace_memory;
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  unsigned char bytes[8];
  std::memcpy(bytes, &low, 4);
  std::memcpy(bytes + 4, &high, 4);
  unsigned found = 0;
  for (int i = 0; i < 4; i++) {
    found |= static_cast<unsigned>(bytes[selector >> 4 * i & 7]) << 8 * i;
  }
  return found;
}
inline void prefetch(const char*, int) {}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float rsqrtf(float value) {
  return 1 / std::sqrt(value);
}

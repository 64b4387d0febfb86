// What kernel text and the runtime share: threads as fibers, and the meeting points of a simdgroup.
//
// One threadgroup runs at a time on one OS thread. Each of its threads is a fiber that runs until it
// reaches a collective operation, where it hands over to the next lane of its simdgroup; the last lane
// to arrive computes the result for all of them and goes on. Lanes form a ring, so the lane after the
// last arrival is always one that was released by it.
#pragma once

#ifdef EMU_CHECKED
#define EMU_UNCHECKED_ACCESS __attribute__((no_sanitize("thread"), noinline))
#else
#define EMU_UNCHECKED_ACCESS
#endif

#define EMU_SITE const char *file = __builtin_FILE(), unsigned line = __builtin_LINE()

namespace emu {

constexpr unsigned simd_width = 32;
constexpr unsigned slot_bytes = 64;

enum Fault : unsigned {
  fault_divergence = 1,
  fault_barrier_flags,
  fault_shuffle,
  fault_threadgroup_memory,
  fault_out_of_bounds,
  fault_read_only,
  fault_uninitialised,
  fault_unwritten,
  fault_race,
  fault_misaligned,
  fault_arithmetic,
  fault_crash,
};

struct Simdgroup;

struct Thread {
  void *stack_pointer;
  Simdgroup *simdgroup;
  Thread *next, *previous;
  unsigned lane;
  unsigned index;        // in the threadgroup
  unsigned position[3];  // in the threadgroup
  char *stack;
  unsigned call_depth;
  void *calls[32];
};

struct Simdgroup {
  Simdgroup *next, *previous;
  Thread *resume;
  unsigned index;
  unsigned size;  // lanes at launch
  unsigned live;  // lanes that have not returned
  unsigned arrived;
  unsigned at_barrier;
  unsigned parity;
  const char *operation, *file;
  unsigned line;
  unsigned phase[3];  // simdgroup barriers passed, by memory kind
  // Two sets: the lanes of one operation read theirs while the first lanes already fill the next.
  alignas(64) unsigned char slots[2][simd_width * slot_bytes];
};

struct Threadgroup {
  unsigned position[3];
  unsigned size[3];     // threads in this threadgroup, smaller at the edges of the grid
  unsigned nominal[3];  // threads in a full one
  unsigned count[3];    // threadgroups in the grid
  unsigned grid[3];
  unsigned threads, simdgroups;
  unsigned live_threads, arrived, exited;
  unsigned flags;
  const char *file;
  unsigned line;
  unsigned linear;
  unsigned phase[3];  // threadgroup barriers passed, by memory kind
};

extern __attribute__((visibility("hidden"))) Thread *current;
extern __attribute__((visibility("hidden"))) Threadgroup group;

extern "C" __attribute__((visibility("hidden"))) void emu_switch(void **save, void *load);

[[noreturn]] void diverged(const char *operation, const char *file, unsigned line);
[[noreturn]] void stop(Fault fault, const char *file, unsigned line, const char *format, ...);
void simdgroup_fence(unsigned flags);
void threadgroup_wait(unsigned flags, const char *file, unsigned line);
void *threadgroup_storage(int id, unsigned long bytes, unsigned long alignment, const char *name, const char *file,
                          unsigned line);
void atomic_access(const volatile void *address, unsigned bytes, bool reads, bool writes);

inline void run_next_lane() {
  Thread *self = current;
  current = self->next;
  emu_switch(&self->stack_pointer, current->stack_pointer);
}

// Counts this lane in. True for the last one, which then owes the others their result.
inline bool arrive(Simdgroup &simdgroup, const char *operation, const char *file, unsigned line) {
  if (simdgroup.arrived++ == 0) {
    if (simdgroup.at_barrier != 0 || simdgroup.live != simdgroup.size) diverged(operation, file, line);
    simdgroup.operation = operation;
    simdgroup.file = file;
    simdgroup.line = line;
  } else if (simdgroup.line != line || simdgroup.operation != operation || simdgroup.file != file) {
    diverged(operation, file, line);
  }
  return simdgroup.arrived == simdgroup.live;
}

// All lanes bring an operand and take away their element of what `combine(operands, lanes)` made of them.
template <class T, class Combine>
inline T meet(const T &operand, const char *operation, const char *file, unsigned line, Combine combine) {
  static_assert(sizeof(T) <= slot_bytes, "operand too large for a simdgroup slot");
  Simdgroup &simdgroup = *current->simdgroup;
  const unsigned lane = current->lane;
  T *operands = reinterpret_cast<T *>(simdgroup.slots[simdgroup.parity]);
  operands[lane] = operand;
  if (arrive(simdgroup, operation, file, line)) {
    combine(operands, simdgroup.size);
    simdgroup.parity ^= 1;
    simdgroup.arrived = 0;
  } else {
    run_next_lane();
  }
  return operands[lane];
}

template <class T, int Id>
inline T &threadgroup_array(const char *name, EMU_SITE) {
  return *static_cast<T *>(threadgroup_storage(Id, sizeof(T), alignof(T), name, file, line));
}

// Arguments of the kernel function: they take the parameter's own type.
struct Pointer {
  void *address;
  template <class T>
  operator T *() const {
    return static_cast<T *>(address);
  }
};

struct Reference {
  void *address;
  template <class T>
  operator T &() const {
    return *static_cast<T *>(address);
  }
};

}  // namespace emu

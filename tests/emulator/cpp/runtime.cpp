// Fibers, scheduling and collective operations; linked into every compiled kernel.

#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "launch.h"

extern "C" __attribute__((visibility("hidden"))) void emu_entry(void *const *buffers);

namespace emu {

Thread *current;
Threadgroup group;
Launch *launch;

namespace {

constexpr unsigned max_threads = 1024;
constexpr unsigned max_simdgroups = max_threads / simd_width;
constexpr unsigned long stack_bytes = 128 << 10;
constexpr unsigned long page = 4096;
constexpr unsigned max_arrays = 64;
constexpr unsigned long threadgroup_memory_limit = 32 << 10;
#ifdef EMU_CHECKED
using checks::array_spacing;
#else
constexpr unsigned long array_spacing = 0;
#endif
constexpr unsigned long arena_bytes = (1ul << 20) * (max_arrays + 2);
constexpr unsigned long stacks_bytes = max_threads * (stack_bytes + page);

Thread threads[max_threads];
Simdgroup simdgroups[max_simdgroups];
void *main_stack_pointer;
bool stopped;

struct Array {
  int id;
  unsigned long offset, bytes;
};
char *arena;
Array arrays[max_arrays];
unsigned array_count;
unsigned long arena_used;

sigjmp_buf crash_exit;

uint64_t random_state;
unsigned random_below(unsigned bound) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<unsigned>((random_state >> 11) % bound);
}

void order(unsigned *items, unsigned count) {
  for (unsigned i = 0; i < count; ++i) items[i] = i;
  if (launch->seed == 0) return;
  for (unsigned i = count; i > 1; --i) {
    const unsigned j = random_below(i), moved = items[i - 1];
    items[i - 1] = items[j];
    items[j] = moved;
  }
}

[[noreturn]] void to_main() {
  void *dropped = nullptr;
  emu_switch(&dropped, main_stack_pointer);
  __builtin_unreachable();
}

void resume(Thread *thread) {
  Thread *self = current;
  current = thread;
  emu_switch(&self->stack_pointer, thread->stack_pointer);
}

// A thread that returned takes itself out of the rings and hands over for good.
[[noreturn]] void thread_returned() {
  Thread *self = current;
  Simdgroup &simdgroup = *self->simdgroup;
  if (simdgroup.arrived != 0 || group.arrived != 0) diverged("the end of the kernel", nullptr, 0);
  ++group.exited;
  if (--group.live_threads == 0) to_main();
  Thread *next;
  if (--simdgroup.live != 0) {
    self->previous->next = self->next;
    self->next->previous = self->previous;
    next = self->next;
  } else {
    simdgroup.previous->next = simdgroup.next;
    simdgroup.next->previous = simdgroup.previous;
    next = simdgroup.next->resume;
  }
  resume(next);
  __builtin_unreachable();
}

void fiber_main() {
  emu_entry(launch->buffers);
  thread_returned();
}

}  // namespace

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
asm(R"(
  .text
  .globl emu_switch
  .hidden emu_switch
  .type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emu_switch, .-emu_switch
)");

static void prepare_stack(Thread &thread) {
  // Neighbouring fibers at the same stack depth would otherwise all fall into the same cache sets.
  char *top = thread.stack + stack_bytes - (thread.index % 32) * 128;
  void **frame = reinterpret_cast<void **>(top) - 8;
  for (int i = 0; i < 8; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void *>(&fiber_main);
  thread.stack_pointer = frame;
}
#else
// Portable and slow: a `stack_pointer` is the address of a context.
static ucontext_t contexts[max_threads], main_context, dropped_context;
extern "C" void emu_switch(void **save, void *load) {
  ucontext_t *self = save == &main_stack_pointer ? &main_context : static_cast<ucontext_t *>(*save);
  *save = self ? self : &dropped_context;
  swapcontext(static_cast<ucontext_t *>(*save), static_cast<ucontext_t *>(load));
}
static void prepare_stack(Thread &thread) {
  ucontext_t &context = contexts[thread.index];
  getcontext(&context);
  context.uc_stack.ss_sp = thread.stack;
  context.uc_stack.ss_size = stack_bytes;
  context.uc_link = nullptr;
  makecontext(&context, &fiber_main, 0);
  thread.stack_pointer = &context;
}
#endif

Finding *new_finding(Fault fault, const void *call) {
  if (launch->finding_count == launch->finding_limit) abandon();
  Finding *finding = &launch->findings[launch->finding_count++];
  memset(finding, 0, sizeof *finding);
  finding->fault = fault;
  finding->region = -1;
  if (call) finding->calls[finding->call_count++] = reinterpret_cast<uint64_t>(call);
  for (int i = 0; i < 3; ++i) {
    finding->threadgroup[i] = static_cast<int32_t>(group.position[i]);
    finding->thread[i] = current ? static_cast<int32_t>(current->position[i]) : -1;
  }
  constexpr unsigned kept = sizeof current->calls / sizeof current->calls[0];
  for (unsigned depth = current ? current->call_depth : 0; depth > 0 && finding->call_count < 8; --depth)
    if (depth <= kept) finding->calls[finding->call_count++] = reinterpret_cast<uint64_t>(current->calls[depth - 1]);
  return finding;
}

void abandon() {
  stopped = true;
  to_main();
}

void stop(Fault fault, const char *file, unsigned line, const char *format, ...) {
  Finding *finding = new_finding(fault, nullptr);
  finding->file = file;
  finding->line = line;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(finding->text, sizeof finding->text, format, arguments);
  va_end(arguments);
  abandon();
}

void diverged(const char *operation, const char *file, unsigned line) {
  const Simdgroup &simdgroup = *current->simdgroup;
  const unsigned lane = current->lane, index = simdgroup.index;
  if (simdgroup.at_barrier != 0 || (file == nullptr && group.arrived != 0)) {
    stop(fault_divergence, file ? file : group.file, file ? line : group.line,
         "lane %u of simdgroup %u reached %s while %u threads wait in threadgroup_barrier at line %u", lane, index,
         operation, group.arrived, group.line);
  }
  if (simdgroup.live != simdgroup.size) {
    stop(fault_divergence, file, line, "lane %u of simdgroup %u reached %s after %u lanes of it had already returned", lane,
         index, operation, simdgroup.size - simdgroup.live);
  }
  stop(fault_divergence, file ? file : simdgroup.file, file ? line : simdgroup.line,
       "lane %u of simdgroup %u reached %s while other lanes of it wait in %s at line %u", lane, index, operation,
       simdgroup.operation, simdgroup.line);
}

void threadgroup_wait(unsigned flags, const char *file, unsigned line) {
  static const char operation[] = "threadgroup_barrier";
  Thread *self = current;
  Simdgroup &simdgroup = *self->simdgroup;
  if (simdgroup.arrived != 0) diverged(operation, file, line);
  if (group.exited != 0) {
    stop(fault_divergence, file, line,
         "lane %u of simdgroup %u reached %s after %u threads of the threadgroup had already returned", self->lane,
         simdgroup.index, operation, group.exited);
  }
  if (group.arrived == 0) {
    group.file = file;
    group.line = line;
    group.flags = flags;
  } else if (group.line != line || group.file != file) {
    stop(fault_divergence, file, line, "lane %u of simdgroup %u reached %s while %u threads wait in the one at line %u",
         self->lane, simdgroup.index, operation, group.arrived, group.line);
  } else if (group.flags != flags) {
    stop(fault_barrier_flags, file, line, "threads pass different flags to one %s (%u and %u)", operation, group.flags,
         flags);
  }
  ++simdgroup.at_barrier;
  if (++group.arrived == group.threads) {
    group.arrived = 0;
    for (unsigned i = 0; i < group.simdgroups; ++i) simdgroups[i].at_barrier = 0;
    for (unsigned kind = 0; kind < 3; ++kind)
      if (flags & (1u << kind)) ++group.phase[kind];
    return;
  }
  if (simdgroup.at_barrier == simdgroup.size) {
    simdgroup.resume = self->next;
    resume(simdgroup.next->resume);
  } else {
    resume(self->next);
  }
}

void simdgroup_fence(unsigned flags) {
  Simdgroup &simdgroup = *current->simdgroup;
  for (unsigned kind = 0; kind < 3; ++kind)
    if (flags & (1u << kind)) ++simdgroup.phase[kind];
}

void *threadgroup_storage(int id, unsigned long bytes, unsigned long alignment, const char *name, const char *file,
                          unsigned line) {
  for (unsigned i = 0; i < array_count; ++i)
    if (arrays[i].id == id && arrays[i].bytes == bytes) return arena + arrays[i].offset;
  if (alignment < 16) alignment = 16;
  const unsigned long offset = (arena_used + alignment - 1) / alignment * alignment;
  launch->threadgroup_bytes = static_cast<uint32_t>(offset + bytes);
  if (offset + bytes > threadgroup_memory_limit || array_count == max_arrays) {
    stop(fault_threadgroup_memory, file, line, "threadgroup memory exceeds 32 KiB: %s takes it to %lu bytes", name,
         offset + bytes);
  }
  arena_used = offset + bytes;
  const unsigned long place = array_spacing ? array_spacing * (array_count + 1) : offset;
  arrays[array_count++] = {id, place, bytes};
  memset(arena + place, 0xFF, bytes);  // NaN in every float format
#ifdef EMU_CHECKED
  checks::storage_added(arena + place, bytes, name);
#endif
  return arena + place;
}

#ifndef EMU_CHECKED
void atomic_access(const volatile void *, unsigned, bool, bool) {}
#endif

namespace {

// One workspace serves all kernels of a process: the first launch maps it, Python hands it to the others.
void take_workspace() {
  if (!launch->workspace) {
    launch->workspace = static_cast<char *>(mmap(nullptr, stacks_bytes + arena_bytes, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    for (unsigned i = 0; i < max_threads; ++i) mprotect(launch->workspace + i * (stack_bytes + page), page, PROT_NONE);
  }
  for (unsigned i = 0; i < max_threads; ++i) threads[i].stack = launch->workspace + i * (stack_bytes + page) + page;
  arena = launch->workspace + stacks_bytes;
}

void run_threadgroup() {
  for (int i = 0; i < 3; ++i) {
    const unsigned first = group.position[i] * group.nominal[i], left = group.grid[i] - first;
    group.size[i] = left < group.nominal[i] ? left : group.nominal[i];
  }
  group.threads = group.live_threads = group.size[0] * group.size[1] * group.size[2];
  group.simdgroups = (group.threads + simd_width - 1) / simd_width;
  group.arrived = group.exited = 0;
  group.linear = group.position[0] + group.count[0] * (group.position[1] + group.count[1] * group.position[2]);
  for (unsigned kind = 0; kind < 3; ++kind) group.phase[kind] = 0;
  for (unsigned i = 0; i < array_count; ++i) memset(arena + arrays[i].offset, 0xFF, arrays[i].bytes);

  unsigned simdgroup_order[max_simdgroups], lane_order[simd_width];
  order(simdgroup_order, group.simdgroups);
  for (unsigned s = 0; s < group.simdgroups; ++s) {
    Simdgroup &simdgroup = simdgroups[simdgroup_order[s]];
    simdgroup.index = simdgroup_order[s];
    simdgroup.next = &simdgroups[simdgroup_order[(s + 1) % group.simdgroups]];
    simdgroup.previous = &simdgroups[simdgroup_order[(s + group.simdgroups - 1) % group.simdgroups]];
    const unsigned first = simdgroup.index * simd_width, left = group.threads - first;
    simdgroup.size = simdgroup.live = left < simd_width ? left : simd_width;
    simdgroup.arrived = simdgroup.at_barrier = simdgroup.parity = 0;
    for (unsigned kind = 0; kind < 3; ++kind) simdgroup.phase[kind] = 0;
    order(lane_order, simdgroup.size);
    for (unsigned l = 0; l < simdgroup.size; ++l) {
      const unsigned lane = lane_order[l];
      Thread &thread = threads[first + lane];
      thread.simdgroup = &simdgroup;
      thread.next = &threads[first + lane_order[(l + 1) % simdgroup.size]];
      thread.previous = &threads[first + lane_order[(l + simdgroup.size - 1) % simdgroup.size]];
      thread.lane = lane;
      thread.index = first + lane;
      thread.position[0] = thread.index % group.size[0];
      thread.position[1] = thread.index / group.size[0] % group.size[1];
      thread.position[2] = thread.index / (group.size[0] * group.size[1]);
      thread.call_depth = 0;
      prepare_stack(thread);
    }
    simdgroup.resume = &threads[first + lane_order[0]];
  }
#ifdef EMU_CHECKED
  checks::threadgroup_begins();
#endif
  current = simdgroups[simdgroup_order[0]].resume;
  emu_switch(&main_stack_pointer, current->stack_pointer);
}

void on_signal(int number, siginfo_t *info, void *context) {
  uint64_t pc = 0;
#if defined(__x86_64__)
  pc = static_cast<uint64_t>(static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  pc = static_cast<ucontext_t *>(context)->uc_mcontext.pc;
#endif
  if (launch->finding_count < launch->finding_limit) {
    Finding *finding =
        new_finding(number == SIGFPE ? fault_arithmetic : fault_crash, reinterpret_cast<const void *>(pc + 1));
    const uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
    if (number == SIGFPE)
      snprintf(finding->text, sizeof finding->text, "integer division by zero");
    else if (current && address >= reinterpret_cast<uint64_t>(current->stack) - page &&
             address < reinterpret_cast<uint64_t>(current->stack))
      snprintf(finding->text, sizeof finding->text, "private memory exceeds %lu KiB", stack_bytes >> 10);
    else
      snprintf(finding->text, sizeof finding->text, "%s", number == SIGILL ? "illegal instruction" : "bad memory access");
    finding->offset = static_cast<int64_t>(address);
  }
  siglongjmp(crash_exit, 1);
}

const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

}  // namespace

extern "C" __attribute__((visibility("default"))) int msl_run(Launch *request) {
  launch = request;
  take_workspace();
  current = nullptr;
  stopped = false;
  array_count = 0;
  arena_used = 0;
  random_state = launch->seed * 0x9E3779B97F4A7C15u + 1;
  unsigned total = 1;
  for (int i = 0; i < 3; ++i) {
    group.grid[i] = launch->grid[i];
    group.nominal[i] = launch->threads[i] < launch->grid[i] ? launch->threads[i] : launch->grid[i];
    group.count[i] = (group.grid[i] + group.nominal[i] - 1) / group.nominal[i];
    total *= group.count[i];
  }

  // The handler must not run on a fiber's stack: that may be what overflowed.
  static char signal_stack[64 << 10];
  stack_t alternative = {}, former;
  alternative.ss_sp = signal_stack;
  alternative.ss_size = sizeof signal_stack;
  sigaltstack(&alternative, &former);
  struct sigaction action = {}, previous[4];
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < 4; ++i) sigaction(caught[i], &action, &previous[i]);

#ifdef EMU_CHECKED
  checks::begin(arena, launch->workspace, stacks_bytes + arena_bytes);
#endif
  bool crashed = false;
  if (sigsetjmp(crash_exit, 1) == 0) {
    unsigned *threadgroup_order = static_cast<unsigned *>(malloc(total * sizeof(unsigned)));
    order(threadgroup_order, total);
    for (unsigned i = 0; i < total && !stopped; ++i) {
      const unsigned at = threadgroup_order[i];
      group.position[0] = at % group.count[0];
      group.position[1] = at / group.count[0] % group.count[1];
      group.position[2] = at / group.count[0] / group.count[1];
      run_threadgroup();
    }
    free(threadgroup_order);
#ifdef EMU_CHECKED
    current = nullptr;
    if (!stopped) checks::end();
#endif
  } else {
    crashed = true;
  }

#ifdef EMU_CHECKED
  checks::release();
#endif
  for (int i = 0; i < 4; ++i) sigaction(caught[i], &previous[i], nullptr);
  sigaltstack(&former, nullptr);
  return crashed ? 2 : stopped ? 1 : 0;
}

}  // namespace emu

// The checked build's half of -fsanitize=thread and -fsanitize=undefined: the compiler calls these at every
// load, store, shift and division of the kernel text, and no sanitizer library is linked.
//
// A byte's shadow holds its last write and two reads by different threads. Two accesses of one byte by
// different threads, one of them a write, race unless a barrier with the right memory flag lies between
// them; this does not depend on the order in which the threads happened to run. Threadgroups are never
// ordered with each other.

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "launch.h"

extern "C" __attribute__((visibility("hidden"))) char __ehdr_start, _end;  // this library's image

namespace emu {
namespace {

using checks::array_spacing;

constexpr unsigned threads_per_group = 1024;

struct Access {
  uint32_t thread;  // 1 + number in the grid's threadgroups of 1024; 0: none
  uint32_t phase, simd_phase;
  uint32_t call;    // return address, from the start of the library
  bool atomic() const { return simd_phase >> 31; }
};
struct Cell {
  Access write, read[2];
};

enum Kind { kind_device = 0, kind_threadgroup = 1 };  // as in Threadgroup::phase

struct Array {
  char *address;
  uint64_t bytes;
  const char *name;
  Cell *cells;
};

constexpr unsigned max_regions = 64, max_arrays = 64, max_seen = 64;

Cell *region_cells[max_regions];
uint32_t *region_epochs[max_regions];  // 1 + the last threadgroup that loaded a byte
Array arrays[max_arrays];
unsigned array_count;
char *arena, *workspace;
uint64_t workspace_bytes;

struct Seen {
  uint32_t fault, call;
};
Seen seen[max_seen];
unsigned seen_count;

template <class T>
T *pages(uint64_t count) {
  if (count == 0) count = 1;
  void *memory =
      mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<T *>(memory);
}
template <class T>
void drop(T *&memory, uint64_t count) {
  if (memory) munmap(memory, (count ? count : 1) * sizeof(T));
  memory = nullptr;
}

uint32_t call_offset(const void *call) {
  return static_cast<uint32_t>(reinterpret_cast<uint64_t>(call) - reinterpret_cast<uint64_t>(&__ehdr_start));
}

// A place in the kernel text is reported once for each kind of fault.
bool first_time(Fault fault, const void *call) {
  const uint32_t offset = call_offset(call);
  for (unsigned i = 0; i < seen_count; ++i)
    if (seen[i].fault == fault && seen[i].call == offset) return false;
  if (seen_count < max_seen) seen[seen_count++] = {fault, offset};
  return true;
}

struct Place {
  int region;     // device buffer, or -1
  Array *array;   // threadgroup array, or null
  int64_t offset;
  bool inside;
};

Finding *report(Fault fault, const Place &place, unsigned bytes, const void *call, const char *text) {
  Finding *finding = new_finding(fault, call);
  finding->region = place.region;
  finding->offset = place.offset;
  finding->bytes = bytes;
  if (place.array)
    snprintf(finding->text, sizeof finding->text, "%s threadgroup array %s, byte %ld of %lu", text, place.array->name,
             static_cast<long>(place.offset), static_cast<unsigned long>(place.array->bytes));
  else
    snprintf(finding->text, sizeof finding->text, "%s ", text);
  return finding;
}

bool within(const char *address, const char *first, uint64_t bytes) {
  return address >= first && address < first + bytes;
}

Place threadgroup_place(char *address, unsigned bytes) {
  // an address in the second half of a slot lies before the next array rather than behind this one
  const int64_t slot = (address - arena + array_spacing / 2) / array_spacing - 1;
  if (slot < 0 || slot >= static_cast<int64_t>(array_count)) return {-1, nullptr, 0, false};
  Array &array = arrays[slot];
  const int64_t offset = address - array.address;
  return {-1, &array, offset, offset >= 0 && static_cast<uint64_t>(offset) + bytes <= array.bytes};
}

Place device_place(char *address, unsigned bytes) {
  if (launch->region_count == 0) return {-1, nullptr, 0, false};
  const int64_t at = reinterpret_cast<int64_t>(address);
  unsigned low = 0, high = launch->region_count;
  while (high - low > 1) {
    const unsigned middle = (low + high) / 2;
    (at >= static_cast<int64_t>(launch->regions[middle].address) ? low : high) = middle;
  }
  const Region *region = &launch->regions[low];
  int64_t offset = at - static_cast<int64_t>(region->address);
  const int64_t past = offset + bytes - static_cast<int64_t>(region->bytes);
  if (offset >= 0 && past <= 0) return {static_cast<int>(low), nullptr, offset, true};
  if (low + 1 < launch->region_count && static_cast<int64_t>(region[1].address) - at < past)
    offset = at - static_cast<int64_t>(launch->regions[++low].address);
  return {static_cast<int>(low), nullptr, offset, false};
}

// False for memory that needs no check: the thread's own stack, constants and the runtime's records.
bool find(char *address, unsigned bytes, Place &place) {
  if (!current || within(address, current->stack, 128 << 10)) return false;
  if (within(address, arena, uint64_t(array_spacing) * (max_arrays + 2))) {
    place = threadgroup_place(address, bytes);
    return true;
  }
  place = device_place(address, bytes);
  if (place.inside) return true;
  if (within(address, &__ehdr_start, static_cast<uint64_t>(&_end - &__ehdr_start))) return false;
  if (within(address, workspace, workspace_bytes)) place.region = -1;
  return true;
}

uint32_t thread_number() { return 1 + group.linear * threads_per_group + current->index; }

// Does a barrier, or being the same thread, order an earlier access before one that happens now?
bool ordered(const Access &earlier, uint32_t thread, Kind kind) {
  if (earlier.thread == 0 || earlier.thread == thread) return true;
  if ((earlier.thread - 1) / threads_per_group != group.linear) return false;
  if (earlier.phase != group.phase[kind]) return true;
  return (earlier.thread - 1) % threads_per_group / simd_width == current->simdgroup->index &&
         (earlier.simd_phase & ~(1u << 31)) != current->simdgroup->phase[kind];
}

void race(const Place &place, const Access &earlier, unsigned bytes, bool writes, bool earlier_writes, const void *call) {
  if (!first_time(fault_race, call)) return;
  const unsigned other = earlier.thread - 1, other_group = other / threads_per_group;
  char text[128];
  snprintf(text, sizeof text, "%s after a %s by thread %u of %s threadgroup, no barrier between:",
           writes ? "write" : "read", earlier_writes ? "write" : "read", other % threads_per_group,
           other_group == group.linear ? "the same" : "another");
  Finding *finding = report(fault_race, place, bytes, call, text);
  finding->other_call = earlier.call + reinterpret_cast<uint64_t>(&__ehdr_start);
}

void shadow(Cell *cells, const Place &place, Kind kind, unsigned bytes, bool writes, bool atomic, bool initialised,
            const void *call) {
  const uint32_t thread = thread_number();
  const Access now = {thread, group.phase[kind], current->simdgroup->phase[kind] | uint32_t(atomic) << 31,
                      call_offset(call)};
  for (unsigned i = 0; i < bytes; ++i) {
    Cell &cell = cells[place.offset + i];
    if (!writes && !initialised && cell.write.thread == 0 && first_time(fault_uninitialised, call))
      report(fault_uninitialised, place, bytes, call, "read of");
    if (!ordered(cell.write, thread, kind) && !(atomic && cell.write.atomic()))
      race(place, cell.write, bytes, writes, true, call);
    if (writes) {
      for (const Access &read : cell.read)
        if (!ordered(read, thread, kind) && !(atomic && read.atomic())) race(place, read, bytes, true, false, call);
      cell.write = now;
    } else if (cell.read[0].thread == thread || ordered(cell.read[0], thread, kind)) {
      cell.read[0] = now;
    } else {
      cell.read[1] = now;
    }
  }
}

void count(unsigned index, uint64_t offset, unsigned bytes, bool reads, bool writes) {
  Region &region = launch->regions[index];
  if (writes) region.stored += bytes;
  if (!reads) return;
  region.loaded += bytes;
  uint32_t *epochs = region_epochs[index] + offset;
  for (unsigned i = 0; i < bytes; ++i) {
    if (epochs[i] == group.linear + 1) continue;
    region.unique += epochs[i] == 0;
    ++region.unique_per_threadgroup;
    epochs[i] = group.linear + 1;
  }
}

void access(const volatile void *where, unsigned bytes, bool reads, bool writes, bool atomic, const void *call) {
  char *address = static_cast<char *>(const_cast<void *>(where));
  Place place;
  if (bytes == 0 || !find(address, bytes, place)) return;
  if (!place.inside) {
    report(fault_out_of_bounds, place, bytes, call,
           place.region < 0 && !place.array ? writes ? "write to memory of no buffer" : "read from memory of no buffer"
           : writes                         ? "write to"
                                            : "read of");
    abandon();
  }
  if (place.array) {
    if (reads) shadow(place.array->cells, place, kind_threadgroup, bytes, false, atomic, false, call);
    if (writes) shadow(place.array->cells, place, kind_threadgroup, bytes, true, atomic, false, call);
    return;
  }
  const Region &region = launch->regions[place.region];
  if (launch->traffic) count(static_cast<unsigned>(place.region), static_cast<uint64_t>(place.offset), bytes, reads, writes);
  if (!region.writable) {
    if (!writes) return;
    report(fault_read_only, place, bytes, call, "write to");
    abandon();
  }
  Cell *cells = region_cells[place.region];
  if (reads) shadow(cells, place, kind_device, bytes, false, atomic, region.initialised, call);
  if (writes) shadow(cells, place, kind_device, bytes, true, atomic, region.initialised, call);
}

}  // namespace

void atomic_access(const volatile void *address, unsigned bytes, bool reads, bool writes) {
  access(address, bytes, reads, writes, true, __builtin_return_address(0));
}

namespace checks {

void begin(char *threadgroup_arena, char *space, uint64_t space_bytes) {
  arena = threadgroup_arena;
  workspace = space;
  workspace_bytes = space_bytes;
  array_count = seen_count = 0;
  for (unsigned i = 0; i < launch->region_count; ++i) {
    const Region &region = launch->regions[i];
    if (region.writable) region_cells[i] = pages<Cell>(region.bytes);
    if (launch->traffic) region_epochs[i] = pages<uint32_t>(region.bytes);
  }
}

void threadgroup_begins() {
  for (unsigned i = 0; i < array_count; ++i) memset(arrays[i].cells, 0, arrays[i].bytes * sizeof(Cell));
}

void storage_added(char *address, uint64_t bytes, const char *name) {
  arrays[array_count++] = {address, bytes, name, pages<Cell>(bytes)};
}

void end() {
  for (unsigned i = 0; i < launch->region_count; ++i) {
    const Region &region = launch->regions[i];
    if (!region.writable || region.initialised || region.partly || launch->finding_count == launch->finding_limit) continue;
    uint64_t missing = 0, first = 0;
    for (uint64_t at = region.bytes; at-- > 0;)
      if (region_cells[i][at].write.thread == 0) ++missing, first = at;
    if (missing == 0) continue;
    char text[96];
    snprintf(text, sizeof text, "%lu of %lu bytes never written, first", static_cast<unsigned long>(missing),
             static_cast<unsigned long>(region.bytes));
    report(fault_unwritten, {static_cast<int>(i), nullptr, static_cast<int64_t>(first), true}, 1, nullptr, text);
  }
}

void release() {
  for (unsigned i = 0; i < launch->region_count; ++i) {
    drop(region_cells[i], launch->regions[i].bytes);
    drop(region_epochs[i], launch->regions[i].bytes);
  }
  for (unsigned i = 0; i < array_count; ++i) drop(arrays[i].cells, arrays[i].bytes);
}

}  // namespace checks

namespace {

// What the compilers pass to their undefined-behaviour handlers: first where, then what.
struct Source {
  const char *file;
  uint32_t line, column;
};
struct TypeName {
  uint16_t kind, info;
  char name[1];
};
struct Mismatch {
  Source source;
  const TypeName *type;
  uint8_t log_alignment, access;
};
struct OutOfBounds {
  Source source;
  const TypeName *array;
};

Finding *undefined(Fault fault, const Source &source, const void *call) {
  Finding *finding = new_finding(fault, call);
  finding->file = source.file;
  finding->line = source.line;
  return finding;
}

void arithmetic(const void *data, const char *what, const void *call) {
  if (!current || !first_time(fault_arithmetic, call)) return;
  Finding *finding = undefined(fault_arithmetic, *static_cast<const Source *>(data), call);
  snprintf(finding->text, sizeof finding->text, "%s", what);
}

}  // namespace
}  // namespace emu

using namespace emu;

#define CALL __builtin_return_address(0)
#define HOOK extern "C" __attribute__((visibility("hidden"))) void

HOOK __tsan_init() {}
HOOK __tsan_func_entry(void *call) {
  if (!current) return;
  if (current->call_depth < sizeof current->calls / sizeof current->calls[0]) current->calls[current->call_depth] = call;
  ++current->call_depth;
}
HOOK __tsan_func_exit() {
  if (current) --current->call_depth;
}
#define ACCESSES(n)                                                                                  \
  HOOK __tsan_read##n(void *p) { access(p, n, true, false, false, CALL); }                           \
  HOOK __tsan_write##n(void *p) { access(p, n, false, true, false, CALL); }                          \
  HOOK __tsan_unaligned_read##n(void *p) { access(p, n, true, false, false, CALL); }                 \
  HOOK __tsan_unaligned_write##n(void *p) { access(p, n, false, true, false, CALL); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
HOOK __tsan_read_range(void *p, unsigned long n) { access(p, static_cast<unsigned>(n), true, false, false, CALL); }
HOOK __tsan_write_range(void *p, unsigned long n) { access(p, static_cast<unsigned>(n), false, true, false, CALL); }
extern "C" __attribute__((visibility("hidden"))) void *__tsan_memcpy(void *to, const void *from, unsigned long n) {
  access(from, static_cast<unsigned>(n), true, false, false, CALL);
  access(to, static_cast<unsigned>(n), false, true, false, CALL);
  return memcpy(to, from, n);
}
extern "C" __attribute__((visibility("hidden"))) void *__tsan_memmove(void *to, const void *from, unsigned long n) {
  access(from, static_cast<unsigned>(n), true, false, false, CALL);
  access(to, static_cast<unsigned>(n), false, true, false, CALL);
  return memmove(to, from, n);
}
extern "C" __attribute__((visibility("hidden"))) void *__tsan_memset(void *to, int value, unsigned long n) {
  access(to, static_cast<unsigned>(n), false, true, false, CALL);
  return memset(to, value, n);
}

HOOK __ubsan_handle_type_mismatch_v1(void *data, unsigned long pointer) {
  if (!current) return;
  const Mismatch &mismatch = *static_cast<Mismatch *>(data);
  const unsigned alignment = 1u << mismatch.log_alignment;
  if (pointer % alignment == 0) return;
  Place place = {-1, nullptr, 0, true};
  find(reinterpret_cast<char *>(pointer), 1, place);
  Finding *finding = undefined(fault_misaligned, mismatch.source, CALL);
  finding->region = place.region;
  finding->offset = place.offset;
  finding->bytes = alignment;
  snprintf(finding->text, sizeof finding->text, "%s needs an address divisible by %u, not %u past one: %s",
           mismatch.type->name, alignment, static_cast<unsigned>(pointer % alignment), place.array ? place.array->name : "");
  abandon();
}
HOOK __ubsan_handle_out_of_bounds(void *data, unsigned long index) {
  if (!current) return;
  const OutOfBounds &bounds = *static_cast<OutOfBounds *>(data);
  Finding *finding = undefined(fault_out_of_bounds, bounds.source, CALL);
  snprintf(finding->text, sizeof finding->text, "index %d of an array %s", static_cast<int>(index), bounds.array->name);
  abandon();
}
HOOK __ubsan_handle_divrem_overflow(void *data, unsigned long, unsigned long) {
  if (!current) return;
  arithmetic(data, "integer division by zero", CALL);
  abandon();
}
HOOK __ubsan_handle_shift_out_of_bounds(void *data, unsigned long, unsigned long by) {
  char text[64];
  snprintf(text, sizeof text, "shift by %d, not less than the type's width", static_cast<int>(by));
  arithmetic(data, text, CALL);
}
HOOK __ubsan_handle_add_overflow(void *data, unsigned long, unsigned long) { arithmetic(data, "signed overflow in a sum", CALL); }
HOOK __ubsan_handle_sub_overflow(void *data, unsigned long, unsigned long) {
  arithmetic(data, "signed overflow in a difference", CALL);
}
HOOK __ubsan_handle_mul_overflow(void *data, unsigned long, unsigned long) {
  arithmetic(data, "signed overflow in a product", CALL);
}
HOOK __ubsan_handle_negate_overflow(void *data, unsigned long) { arithmetic(data, "signed overflow in a negation", CALL); }
HOOK __ubsan_handle_float_cast_overflow(void *data, unsigned long) {
  arithmetic(data, "floating-point value outside the integer type", CALL);
}

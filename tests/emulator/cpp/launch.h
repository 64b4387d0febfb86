// The records that cross from Python (execution.py, worker.py) into the runtime and back.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace emu {

struct Region {  // one device buffer
  uint64_t address, bytes;
  uint32_t writable, initialised;
  uint32_t partly;                   // an output that may be left unwritten
  uint64_t loaded, stored;           // bytes, every access of every thread
  uint64_t unique;                   // distinct bytes loaded by the launch
  uint64_t unique_per_threadgroup;   // distinct bytes loaded by each threadgroup, summed
};

struct Finding {
  uint32_t fault;
  uint32_t line;       // of a collective operation; 0 where the call stack says it
  const char *file;
  uint32_t call_count;
  uint64_t calls[8];   // return addresses, innermost first
  int32_t threadgroup[3];
  int32_t thread[3];   // in the threadgroup
  int32_t region;      // index, or -1
  int64_t offset;      // byte offset into it
  uint32_t bytes;
  uint64_t other_call;
  char text[256];
};

struct Launch {
  void **buffers;
  uint32_t grid[3];
  uint32_t threads[3];  // per threadgroup
  uint64_t seed;        // 0: natural order
  uint32_t traffic;     // count bytes
  Region *regions;
  uint32_t region_count;
  uint32_t finding_limit, finding_count;
  uint32_t threadgroup_bytes;  // out: threadgroup memory used
  Finding *findings;
  char *workspace;  // stacks and threadgroup memory, null before the first launch
};

extern Launch *launch;
// Room for one more finding of the current thread, its call stack filled in; abandons the launch when full.
Finding *new_finding(Fault fault, const void *call);
[[noreturn]] void abandon();

#ifdef EMU_CHECKED
namespace checks {
constexpr unsigned array_spacing = 1 << 20;  // far apart, so that an index gone astray meets no other array
void begin(char *threadgroup_arena, char *workspace, uint64_t workspace_bytes);
void threadgroup_begins();
void storage_added(char *address, uint64_t bytes, const char *name);
void end();
void release();
}  // namespace checks
#endif

}  // namespace emu

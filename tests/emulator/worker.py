"""The child process that runs compiled kernels, so that a crash of theirs is only a report.

Reads one JSON request a line from stdin, answers one a line on stdout. Buffers live in a memory file that
the parent opened; each ends at a page that must not be touched. Run as a script, with no imports beyond
the standard library, so that it starts in a few milliseconds.
"""

import contextlib
import ctypes
import json
import mmap
import sys

PAGE = 4096
FINDING_LIMIT = 24


class Region(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("writable", ctypes.c_uint32),
        ("initialised", ctypes.c_uint32),
        ("partly", ctypes.c_uint32),
        ("loaded", ctypes.c_uint64),
        ("stored", ctypes.c_uint64),
        ("unique", ctypes.c_uint64),
        ("unique_per_threadgroup", ctypes.c_uint64),
    ]


class Finding(ctypes.Structure):
    _fields_ = [
        ("fault", ctypes.c_uint32),
        ("line", ctypes.c_uint32),
        ("file", ctypes.c_char_p),
        ("call_count", ctypes.c_uint32),
        ("calls", ctypes.c_uint64 * 8),
        ("threadgroup", ctypes.c_int32 * 3),
        ("thread", ctypes.c_int32 * 3),
        ("region", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        ("bytes", ctypes.c_uint32),
        ("other_call", ctypes.c_uint64),
        ("text", ctypes.c_char * 256),
    ]


class Launch(ctypes.Structure):
    _fields_ = [
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint32 * 3),
        ("threads", ctypes.c_uint32 * 3),
        ("seed", ctypes.c_uint64),
        ("traffic", ctypes.c_uint32),
        ("regions", ctypes.POINTER(Region)),
        ("region_count", ctypes.c_uint32),
        ("finding_limit", ctypes.c_uint32),
        ("finding_count", ctypes.c_uint32),
        ("threadgroup_bytes", ctypes.c_uint32),
        ("findings", ctypes.POINTER(Finding)),
        ("workspace", ctypes.c_void_p),
    ]


libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Arena:
    """The memory file shared with the parent."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.bytes = 0
        self.address = 0
        self.guarded = []

    def resize(self, count):
        if count > self.bytes:
            self.map = mmap.mmap(self.descriptor, count)
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
            self.bytes, self.guarded = count, []

    def protect(self, regions):
        """Inputs read-only, the page after each buffer out of bounds."""
        for start, count in self.guarded:
            libc.mprotect(self.address + start, count, mmap.PROT_READ | mmap.PROT_WRITE)
        self.guarded = []
        for offset, count, writable, *_ in regions:
            first = offset // PAGE * PAGE
            last = (offset + count + PAGE - 1) // PAGE * PAGE
            if not writable and last > first:
                libc.mprotect(self.address + first, last - first, mmap.PROT_READ)
                self.guarded.append((first, last - first))
            libc.mprotect(self.address + last, PAGE, 0)
            self.guarded.append((last, PAGE))


def module_base(run):
    """Load address of the library that holds the function `run`."""

    class Info(ctypes.Structure):
        _fields_ = [
            ("file", ctypes.c_char_p),
            ("base", ctypes.c_void_p),
            ("symbol", ctypes.c_char_p),
            ("address", ctypes.c_void_p),
        ]

    info = Info()
    libc.dladdr(ctypes.cast(run, ctypes.c_void_p), ctypes.byref(info))
    return info.base or 0


def main():
    # the kernel libraries are linked against nothing and find expf and the like here
    ctypes.CDLL("libm.so.6", mode=ctypes.RTLD_GLOBAL)
    arena = Arena(int(sys.argv[1]))
    libraries = {}
    workspace = None
    for line in sys.stdin:
        request = json.loads(line)
        path = request["library"]
        if path not in libraries:
            run = ctypes.CDLL(path).msl_run
            run.argtypes = [ctypes.POINTER(Launch)]
            libraries[path] = (run, module_base(run))
        run, base = libraries[path]
        arena.resize(request["bytes"])
        regions = request["regions"]
        arena.protect(regions)
        region_array = (Region * max(1, len(regions)))()
        addresses = (ctypes.c_void_p * max(1, len(regions)))()
        for i, (offset, count, *flags) in enumerate(regions):
            region_array[i] = Region(arena.address + offset, count, *flags)
            addresses[i] = arena.address + offset
        findings = (Finding * FINDING_LIMIT)()
        launch = Launch(
            buffers=addresses,
            grid=tuple(request["grid"]),
            threads=tuple(request["threads"]),
            seed=request["seed"],
            traffic=request["traffic"],
            regions=region_array,
            region_count=len(regions),
            finding_limit=FINDING_LIMIT,
            findings=findings,
            workspace=workspace,
        )
        status = run(ctypes.byref(launch))
        workspace = launch.workspace
        answer = {
            "status": status,
            "threadgroup_bytes": launch.threadgroup_bytes,
            "findings": [described(finding, base) for finding in findings[: launch.finding_count]],
        }
        if request["traffic"]:
            answer["traffic"] = [
                [r.loaded, r.stored, r.unique, r.unique_per_threadgroup] for r in region_array[: len(regions)]
            ]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if status == 2:
            return  # a crash may have damaged this process: the parent starts another


def described(finding, base):
    return {
        "fault": finding.fault,
        "file": finding.file.decode() if finding.file else "",
        "line": finding.line,
        "calls": [call - base for call in finding.calls[: finding.call_count]],
        "other_call": finding.other_call - base if finding.other_call else 0,
        "threadgroup": list(finding.threadgroup),
        "thread": list(finding.thread),
        "region": finding.region,
        "offset": finding.offset,
        "bytes": finding.bytes,
        "text": finding.text.decode(errors="replace"),
    }


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

#!/usr/bin/env bash
# The kernels' text on an NVIDIA GPU: compared with the emulator, then under each tool of compute-sanitizer, which must
# find nothing in it and must find a fault that is planted for it. Two to five minutes.
#
#     python -m benchmarks.cuda_kernels record cases.npz.xz     (on Linux with the development install)
#     bash benchmarks/cuda_check.sh cases.npz.xz [logs]         (python3 with CuPy and NumPy, compute-sanitizer)
set -u
cd "$(dirname "$0")/.."
cases=$1
logs=${2:-$(mktemp -d)}
mkdir -p "$logs"
check() { python3 benchmarks/cuda_kernels.py "$@"; }
sanitized() { # tool, log, arguments
    local tool=$1 log=$2 options=()
    shift 2
    if [ "$tool" = initcheck ] && compute-sanitizer --help | grep -q initcheck-address-space; then
        options=(--initcheck-address-space all)
    fi
    timeout 280 compute-sanitizer --tool "$tool" "${options[@]}" --error-exitcode 9 \
        python3 benchmarks/cuda_kernels.py "$@" >"$logs/$log" 2>&1
    echo "status $?" >>"$logs/$log"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
compute-sanitizer --version | tail -1
check run "$cases" >"$logs/run.txt" 2>&1
result=$?

sanitized memcheck memcheck.txt once "$cases" &
sanitized racecheck racecheck.txt once "$cases" &
sanitized synccheck synccheck.txt once "$cases" &
sanitized initcheck initcheck.txt once "$cases" &
sanitized memcheck memcheck-planted.txt planted "$cases" out-of-bounds &
sanitized racecheck racecheck-planted.txt planted "$cases" race &
sanitized synccheck synccheck-planted.txt planted "$cases" divergence &
sanitized initcheck initcheck-planted.txt planted "$cases" uninitialised &
wait

for tool in memcheck racecheck synccheck initcheck; do
    clean=$(grep -h -m1 "SUMMARY" "$logs/$tool.txt")
    found=$(grep -h -m1 "SUMMARY" "$logs/$tool-planted.txt")
    echo "$tool: ${clean:-no summary}, $(tail -1 "$logs/$tool.txt"); planted fault: ${found:-no summary}"
    grep -q "^status 0" "$logs/$tool.txt" || { result=1; tail -n 6 "$logs/$tool.txt"; }
    grep -q "^status 9" "$logs/$tool-planted.txt" || { result=1; tail -n 6 "$logs/$tool-planted.txt"; }
done
tail -n 24 "$logs/run.txt"
exit $result

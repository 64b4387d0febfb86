"""Load: many clients against a real HTTP server on loopback; latency, throughput, memory, and whether answers agree.

    python benchmarks/serving_load.py                      a minute for each server
    python benchmarks/serving_load.py --seconds 600        for the record

Three servers are measured one after the other with the same clients and prompts: `orthrus-mlx serve`, the same limited
to one request at a time, and `mlx_lm.server` on the same folder (plain Qwen3 there: it knows no diffusion view). Every
client asks for one answer after the other; every eighth streams, which gives the time to the first token. Greedy
decoding, so all answers to a prompt should be the same text; how many texts there were is in the report. Kernels are
timed once, by the first server, and kept for the others: other kernels may give other texts. Clients and server share
the machine. Results go to benchmarks/results/serving_load.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orthrus_mlx.atomic_file import write_json, write_text
from orthrus_mlx.bench.prompts import read_prompts
from orthrus_mlx.loading import demo_folder
from orthrus_mlx.machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "serving_load"
START_SECONDS = 180.0
ANSWER_SECONDS = 300.0
STREAM_EVERY = 8
SAID = re.compile(rb'"content": ?"[^"]')
"""A delta with text in it: servers begin with an empty one."""


@dataclass
class Load:
    """What the clients saw of one server.

    Attributes:
        seconds: from the first question to the last answer.
        latencies: seconds of each answered request.
        first_tokens: seconds to the first token of each streamed one.
        tokens, prompt_tokens, cached_tokens: as the server counts them, in answers that were not streamed; streamed
            tokens are counted by chunk and are in `tokens` too.
        errors: what went wrong, in words.
        resident: (second, resident bytes of the server) over the run.
        texts: the different answers to each prompt.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    errors: list[str] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)
    texts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def commands(model: str, clients: int, port: int) -> dict[str, list[str]]:
    """The servers, by name."""
    ours = [sys.executable, "-m", "orthrus_mlx", "serve", "--model", model, "--port", str(port), "--log-level", "ERROR"]
    ours += ["--max-requests", str(2 * clients)]
    theirs = [sys.executable, "-m", "mlx_lm", "server", "--model", model, "--port", str(port), "--log-level", "ERROR"]
    return {"packed": ours, "one at a time": [*ours, "--max-running", "1"], "mlx_lm.server": theirs}


# A client -----------------------------------------------------------------------------------------------


async def post(port: int, body: dict[str, Any]) -> tuple[bytes, float | None]:
    """(body of the reply, seconds to its first data line) of a chat completion; plain HTTP/1.1, one a connection."""
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = json.dumps(body).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        )
        received, first = b"", None
        while piece := await reader.read(65536):
            received += piece
            if first is None and SAID.search(received):
                first = time.perf_counter() - start
    finally:
        writer.close()
    head, _, rest = received.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ValueError(f"{head[:60]!r} {rest[:200]!r}")
    return (dechunked(rest) if b"chunked" in head.lower() else rest), first


def dechunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        whole, data = whole + data[:length], data[length + 2 :]
    return whole


async def ask(port: int, prompt: Any, max_tokens: int, stream: bool, load: Load) -> None:
    body = {"messages": list(prompt.messages), "max_tokens": max_tokens, "temperature": 0.0, "seed": 0}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    start = time.perf_counter()
    async with asyncio.timeout(ANSWER_SECONDS):
        data, first = await post(port, body)
    load.latencies.append(time.perf_counter() - start)
    if stream:
        lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: {")]
        events = [json.loads(line) for line in lines]
        text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
        usage = next(e["usage"] for e in reversed(events) if e.get("usage"))
        if first is not None:
            load.first_tokens.append(first)
    else:
        reply = json.loads(data)
        text, usage = reply["choices"][0]["message"].get("content") or "", reply["usage"]
    load.tokens += usage["completion_tokens"]
    load.prompt_tokens += usage["prompt_tokens"]
    load.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    load.texts[prompt.id].add(text)


async def crowd(port: int, server: int, prompts: Sequence[Any], args: argparse.Namespace) -> Load:
    """`args.clients` clients for `args.seconds`; each finishes what it has begun."""
    load = Load()
    begin = time.perf_counter()

    async def client(number: int) -> None:
        rng = random.Random(number)
        while time.perf_counter() - begin < args.seconds:
            try:
                await ask(port, rng.choice(prompts), args.max_tokens, number % STREAM_EVERY == 0, load)
            except Exception as error:
                load.errors.append(f"{type(error).__name__}: {error}"[:300])
                await asyncio.sleep(0.2)

    async def watch() -> None:
        while True:
            load.resident.append((time.perf_counter() - begin, resident_bytes(server)))
            await asyncio.sleep(min(1.0, args.seconds / 20))

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(client(i) for i in range(args.clients)))
    watcher.cancel()
    load.seconds = time.perf_counter() - begin
    return load


# The servers --------------------------------------------------------------------------------------------


def resident_bytes(process: int) -> int:
    """Resident bytes of a process, from /proc where there is one, else from ps."""
    status = Path(f"/proc/{process}/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 1024 * int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(process)]))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def measure(
    name: str, command: Sequence[str], port: int, prompts: Sequence[Any], cache: str, args: argparse.Namespace
) -> Load:
    """Start the server, warm it up, let the crowd in, stop it."""
    with tempfile.TemporaryFile() as log:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": cache}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(process, port, name)
            warm = Load()
            asyncio.run(ask(port, prompts[0], args.max_tokens, False, warm))
            return asyncio.run(crowd(port, process.pid, prompts, args))
        except Exception:
            log.seek(0)
            sys.stderr.write(log.read()[-2000:].decode(errors="replace"))
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(process: subprocess.Popen, port: int, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{name}: the server ended with {process.returncode} before it served")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{name}: the server does not listen after {START_SECONDS:.0f} seconds")


# The report ---------------------------------------------------------------------------------------------


def summary(load: Load) -> dict[str, Any]:
    """The figures of a run."""
    settled = [size for second, size in load.resident if second >= load.seconds / 4]
    return {
        "requests": len(load.latencies),
        "errors": len(load.errors),
        "seconds": round(load.seconds, 1),
        "tokens_per_second": round(load.tokens / load.seconds, 1),
        "requests_per_second": round(len(load.latencies) / load.seconds, 2),
        "latency_p50": quantile(load.latencies, 50),
        "latency_p99": quantile(load.latencies, 99),
        "first_token_p50": quantile(load.first_tokens, 50),
        "first_token_p99": quantile(load.first_tokens, 99),
        "cached_share": round(load.cached_tokens / max(load.prompt_tokens, 1), 3),
        "resident_mb_after_a_quarter": settled[0] // 10**6 if settled else None,
        "resident_mb_at_the_end": settled[-1] // 10**6 if settled else None,
        "resident_mb": [size // 10**6 for _, size in load.resident[:: max(len(load.resident) // 20, 1)]],
        "resident_mb_peak": max((size for _, size in load.resident), default=0) // 10**6,
        "prompts": len(load.texts),
        "prompts_with_several_texts": sum(len(texts) > 1 for texts in load.texts.values()),
        "error_samples": load.errors[:3],
    }


def quantile(values: Sequence[float], percent: int) -> float | None:
    if len(values) < 2:
        return round(values[0], 3) if values else None
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


ROWS = {
    "requests answered": "requests",
    "errors": "errors",
    "tokens/s": "tokens_per_second",
    "requests/s": "requests_per_second",
    "latency p50, s": "latency_p50",
    "latency p99, s": "latency_p99",
    "first token p50, s": "first_token_p50",
    "first token p99, s": "first_token_p99",
    "prompt tokens from cache": "cached_share",
    "resident, MB, after a quarter": "resident_mb_after_a_quarter",
    "resident, MB, at the end": "resident_mb_at_the_end",
    "prompts with several answers": "prompts_with_several_texts",
}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    figures = report["servers"]
    lines = [
        "# Serving under load",
        "",
        f"{report['clients']} clients on loopback, {report['asked_seconds']} s for each server, at most "
        f"{report['max_tokens']} tokens an answer, greedy, `{report['model']}`; the clients run on the same machine. "
        f"Load of the machine before: {report['load_average']}.",
        "",
        *(f"- {name}: {value}" for name, value in report["machine"].items()),
        "",
        "| | " + " | ".join(figures) + " |",
        "|---|" + "---|" * len(figures),
        *(f"| {label} | " + " | ".join(str(f[key]) for f in figures.values()) + " |" for label, key in ROWS.items()),
        "",
    ]
    if "packed" in figures and "one at a time" in figures:
        lines += [
            f"Prompts whose answer differs between packed and one at a time: {report['differing']} of "
            f"{figures['packed']['prompts']}.",
            "",
        ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(demo_folder()), help="a folder (default: the demo model)")
    parser.add_argument("--prompts", default="demo", help="a set of orthrus-mlx bench, or a JSONL file")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of questions for each server (60)")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--servers", default="packed,one at a time,mlx_lm.server", help="which, with commas")
    parser.add_argument("--output", type=Path, default=RESULTS, help="without suffix")
    args = parser.parse_args()
    prompts, _ = read_prompts(args.prompts)
    report: dict[str, Any] = {
        "model": Path(args.model).name,
        "clients": args.clients,
        "asked_seconds": args.seconds,
        "max_tokens": args.max_tokens,
        "load_average": round(os.getloadavg()[0], 2),
        "machine": describe_machine(),
        "servers": {},
    }
    loads: dict[str, Load] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in args.servers.split(","):
            port = free_port()
            loads[name] = measure(name, commands(args.model, args.clients, port)[name], port, prompts, cache, args)
            report["servers"][name] = summary(loads[name])
            print(name, json.dumps(report["servers"][name]), flush=True)
    if {"packed", "one at a time"} <= loads.keys():
        packed, single = loads["packed"].texts, loads["one at a time"].texts
        report["differing"] = sum(packed[p] != single[p] for p in packed.keys() & single.keys())
    write_json(args.output.with_suffix(".json"), report)
    write_text(args.output.with_suffix(".md"), markdown(report))
    print(f"written to {args.output.with_suffix('.md')}")
    return int(any(figures["errors"] for figures in report["servers"].values()))


if __name__ == "__main__":
    sys.exit(main())

"""Runs model-written code: its own process, no environment, few builtins, limits on time, memory and files.

This keeps a small model's accidents (endless loops, memory, writing files) away from the caller. It is no jail for
code written by somebody who wants to break out of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

# What a small teaching function needs; no open, no input, no eval, no attribute setters.
_BUILTINS = (
    "abs all any bool chr dict divmod enumerate filter float frozenset int isinstance len list map max min ord "
    "pow print range repr reversed round set slice sorted str sum tuple zip True False None ArithmeticError "
    "Exception IndexError KeyError StopIteration TypeError ValueError ZeroDivisionError"
)

# Read by `python -I -S -c`: one JSON list of programs on stdin, one JSON list of reasons on stdout.
_RUNNER = """
import builtins, contextlib, io, json, resource, sys
for limit, value in ((resource.RLIMIT_CPU, {cpu}), (resource.RLIMIT_AS, 1 << 29), (resource.RLIMIT_FSIZE, 0),
                     (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_CORE, 0)):
    with contextlib.suppress(ValueError, OSError):  # not every system knows every limit
        resource.setrlimit(limit, (value, value))
safe = {{name: getattr(builtins, name) for name in {names!r}.split() if hasattr(builtins, name)}}
def run(program):
    space = {{"__builtins__": dict(safe), "__name__": "answer"}}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(program["code"], "<answer>", "exec"), space)
            function = space.get(program["function"])
            if not callable(function):
                return "no function named " + program["function"]
            for case in program["cases"]:
                shown = repr(case["args"])
                got = function(*case["args"])
                same_type = isinstance(got, bool) == isinstance(case["result"], bool)
                if json.loads(json.dumps(got)) != case["result"] or not same_type:
                    return f"arguments {{shown}} gave {{got!r}}, expected {{case['result']!r}}"
    except BaseException as error:
        return f"{{type(error).__name__}}: {{error}}"
    return ""
programs = json.load(sys.stdin)
print(json.dumps([run(program) for program in programs]))
"""


def run_programs(programs: Sequence[dict[str, Any]], seconds: int = 4) -> list[str]:
    """Run programs `{"code", "function", "cases": [{"args", "result"}]}` in one subprocess.

    Returns one reason per program, empty where every case gave its result. `seconds` of CPU time are for all of
    them together; a batch that overruns or kills its process fails as a whole.
    """
    runner = _RUNNER.format(names=_BUILTINS, cpu=seconds)
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", runner],
                input=json.dumps(programs),
                capture_output=True,
                text=True,
                timeout=seconds + 2,
                cwd=folder,
                env={},
            )
        except subprocess.TimeoutExpired:
            return ["ran out of time"] * len(programs)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return [f"the process ended with code {done.returncode}"] * len(programs)

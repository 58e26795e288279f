"""Processes of other interpreters that run calls on request and time them. Standard library only.

The benchmark has a `Peer`; its process ends in `serve`. A request is a line of JSON, and so is the answer to it.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from _measure import Sample


class Peer:
    """A process that runs the calls of one contender: the script `worker` with the arguments `name folder options`.

    **Fields:** `name`, `folder`; `found`, what the last call sent back beside its times.
    """

    def __init__(self, python: str, worker: str, name: str, folder: pathlib.Path, *options: object):
        self.name, self.folder = name, folder
        self.found: Any = None
        self._log = folder / f"{name}.log"
        command = [python, str(pathlib.Path(__file__).with_name(worker)), name, str(folder), *map(str, options)]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._answer()

    def run(self, **request: Any) -> Sample:
        """One call; `RuntimeError`, with the end of its log, if the process died."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.found = answer["found"]
        return Sample(answer["wall"], answer["cpu"], answer["peak"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process of {self.name} has ended:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def serve(start: Callable[[], Callable[..., Callable[[], Any]]], send: Callable[..., Any]) -> None:
    """Answers requests until standard input ends; what a package prints goes to standard error.

    `start()` is called once, and gives the function that makes a call of a request: `prepare(**request)`. The call
    alone is timed. `send(result, **request)` keeps what it has found, or returns what is to be sent back.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing must come between the answers
    prepare = start()
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        result, answer = _measured(prepare(**request))
        answer["found"] = send(result, **request)
        print(json.dumps(answer), file=answers, flush=True)


def _measured(call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Result, wall and CPU seconds, and how far resident memory rose above what it was before."""
    before = None
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _memory("VmRSS:")
    except OSError:
        pass
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = None if before is None else max(0, (_memory("VmHWM:") or 0) - before)
    return result, {"wall": wall, "cpu": cpu, "peak": peak}


def _memory(field: str) -> int | None:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)

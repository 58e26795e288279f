"""Timing calls and processes side by side, and writing down on what they ran. Standard library only.

A process that measures others must stay small: on Linux the peak memory of a child starts at that of its parent.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


RESULTS = pathlib.Path(__file__).parent / "results"
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run: seconds by the clock, seconds of all cores together, and the peak of resident memory if known."""

    wall: float
    cpu: float
    peak_bytes: int | None = None


@dataclasses.dataclass
class Measured:
    """All runs of one contender."""

    samples: list[Sample] = dataclasses.field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The least wall time, the median of the CPU time, and the largest peak."""
        peaks = [sample.peak_bytes for sample in self.samples if sample.peak_bytes is not None]
        return {
            "wall_s": min(sample.wall for sample in self.samples),
            "cpu_s": statistics.median(sample.cpu for sample in self.samples),
            "peak_mib": max(peaks) / MIB if peaks else None,
            "walls_s": [sample.wall for sample in self.samples],
            "cpus_s": [sample.cpu for sample in self.samples],
        }


def time_call(function: Callable[[], Any]) -> Sample:
    """One call in this process; its CPU time counts every thread."""
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def run_process(command: Sequence[str], *, log: pathlib.Path, env: Mapping[str, str] | None = None) -> Sample:
    """One fresh process from start to exit, with its descendants; output goes to `log`.

    It may keep what it compiles of its sources, as an installed package has it.

    **Raises:** `RuntimeError` with the end of the log if it does not exit with 0.
    """
    with open(log, "wb") as file:
        wall = time.perf_counter()
        variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(env or {})}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=variables)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - wall
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"Exit code {process.returncode}: {' '.join(command)}\n{log.read_text()[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def interleave(
    contenders: Mapping[str, Callable[[], Sample]], rounds: int, *, budget: float = float("inf")
) -> dict[str, Measured]:
    """Runs A, B, C, A, B, C, ..., so that a busy minute of the machine falls on all of them.

    After two rounds no further one starts if it would end past `budget` seconds.
    """
    measured = {name: Measured() for name in contenders}
    start = time.perf_counter()
    for done in range(rounds):
        spent = time.perf_counter() - start
        if done >= 2 and spent * (done + 1) / done > budget:
            break
        for name, contender in contenders.items():
            measured[name].samples.append(contender())
    return measured


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of installed packages, and of this interpreter."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def versions_of(python: str, packages: Sequence[str]) -> dict[str, str]:
    """The same for another interpreter."""
    code = (
        "import importlib.metadata as m, json, platform, sys; "
        "print(json.dumps({'python': platform.python_version(), **{n: m.version(n) for n in sys.argv[1:]}}))"
    )
    return json.loads(subprocess.run([python, "-c", code, *packages], check=True, capture_output=True).stdout)


def machine() -> dict[str, Any]:
    """What the benchmark ran on."""
    return {"cpu": _cpu_model(), "cores": _cores(), "memory_gib": _memory_gib(), "system": platform.system()}


def load() -> list[float]:
    """Runnable processes, averaged over 1, 5 and 15 minutes."""
    return [round(x, 2) for x in os.getloadavg()]


def write_results(name: str, results: Mapping[str, Any], text: str, folder: pathlib.Path) -> None:
    """`name.json` and `name.md` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    (folder / f"{name}.json").write_text(json.dumps({"benchmark": name, "date": date, **results}, indent=1) + "\n")
    (folder / f"{name}.md").write_text(f"{text.rstrip()}\n")
    print(text)


def preamble(title: str, results: Mapping[str, Any]) -> list[str]:
    """The heading of a report: on what, with what, under which load."""
    where, peers = results["machine"], results.get("peers_versions")
    listing = lambda found: ", ".join(f"{name} {version}" for name, version in found.items())
    return [
        f"# {title}",
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; {where['cpu']}, {where['cores']} cores, "
        f"{where['memory_gib']:.0f} GiB, {where['system']}. Load average (1, 5, 15 min) "
        f"{results['load']['start']} at the start, {results['load']['end']} at the end.",
        "",
        f"Ours: {listing(results['versions'])}." + (f" Peers' interpreter: {listing(peers)}." if peers else ""),
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table; numbers get three significant digits, `None` a dash."""
    lines = [header, ["---"] * len(header), *([_cell(x) for x in row] for row in rows)]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


def target(what: str, value: float | None, limit: float, *, at_least: bool = False) -> dict[str, Any]:
    """One target, and whether it is met; `value` is `None` where it was not measured."""
    met = None if value is None else (value >= limit if at_least else value <= limit)
    return {"target": what, "measured": value, "limit": limit, "at_least": at_least, "met": met}


def target_rows(targets: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the targets."""
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [
        [row["target"], row["measured"], f"{'≥' if row['at_least'] else '≤'} {row['limit']:g}", words[row["met"]]]
        for row in targets
    ]
    return table(["target", "measured", "limit", "met"], rows)


def _cell(x: Any) -> str:
    if x is None:
        return "–"
    return f"{x:.3g}" if isinstance(x, float) and abs(x) < 1000 else f"{x:.0f}" if isinstance(x, float) else str(x)


def _cpu_model() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30

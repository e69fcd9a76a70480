"""`make bench`: measures, writes docs/performance.json and renders the page.

python -m benchmarks [--size small|medium|full] [--only join ...] [--out FOLDER]

Imports the standard library alone, so that no child process starts with this one's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ["feast", "duckdb", "pandas", "mlflow", "optuna", "scikit-learn", "kfp", "kserve", "papermill"]
# join: (questions, rows, rounds) of each table; ttl: (questions, rows, hours to live, rounds).
SIZES: dict[str, dict] = {
    "small": {
        "join": [(1_000, 20_000, 1)],
        "ttl": (1_000, 20_000, [24], 1),
        "online": {"rounds": 1, "requests": 50},
        "course": {"before": "01"},
    },
    "medium": {
        "join": [(10_000, 100_000, 3), (100_000, 1_000_000, 3)],
        "ttl": (100_000, 1_000_000, [1, 24, 72, 168], 1),
        "online": {"rounds": 3, "requests": 2000},
        "course": {"before": "99"},
    },
    "full": {
        "join": [(10_000, 100_000, 5), (100_000, 1_000_000, 5), (1_000_000, 10_000_000, 3)],
        "ttl": (100_000, 1_000_000, [1, 6, 24, 72, 168], 3),
        "online": {"rounds": 5, "requests": 2000},
        "course": {"before": "99"},
    },
}
JOINERS = ["feast", "asof", "pandas", "feast_asof"]


def machine() -> dict:
    """What the figures were measured on: no name of the machine, no path."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": cores,
        "memory_gb": round(memory),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def child(module: str, *arguments: object) -> object:
    """Run a module of this package in a process of its own; returns the last line that it prints, from JSON.

    Raises:
        SystemExit: it failed; the end of its output is printed.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, cwd=tempfile.gettempdir(), env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2000:] + done.stderr[-4000:], file=sys.stderr)
        raise SystemExit(f"error: benchmarks.{module} {' '.join(map(str, arguments))} failed; see above")
    return json.loads((done.stdout.strip().splitlines() or ["null"])[-1])


def turns(contestants: list[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Each round begins with another contestant, so that a busy minute hits them all."""
    for number in range(rounds):
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            yield number, contestant


def note(text: str) -> None:
    """Report progress."""
    print(text, flush=True)


def spread(name: str, values: list[float]) -> dict:
    """The median of the rounds under ``name`` and, of several rounds, the least and the greatest value."""
    least, middle, greatest = (float(f"{f(values):.5g}") for f in (min, median, max))
    return {name: middle} | ({f"{name}_range": [least, greatest]} if len(values) > 1 else {})


def figures(runs: list[dict], beside: str, values: list[str], ratios: dict[str, str]) -> list[dict]:
    """One row for each contestant: its values, and what they are beside those of another in the same round.

    Args:
        runs: of one table or service, each with its ``round`` and ``contestant``.
        beside: the contestant that the ratios compare with.
        values: names of values to summarize.
        ratios: for each ratio's name, the value that it divides.
    """
    rows = []
    for contestant in dict.fromkeys(run["contestant"] for run in runs):
        own = [run for run in runs if run["contestant"] == contestant]
        row = {"contestant": contestant}
        for value in values:
            row |= spread(value, [run[value] for run in own])
        for name, value in ratios.items():
            other = {run["round"]: run[value] for run in runs if run["contestant"] == beside}
            row |= spread(name, [run[value] / other[run["round"]] for run in own])
        rows.append(row)
    return rows


def agree(runs: list[dict], answer: str) -> None:
    """Raises SystemExit when the contestants' answers differ: then their times say nothing."""
    if len({json.dumps(run[answer]) for run in runs}) != 1:
        names = ", ".join(dict.fromkeys(run["contestant"] for run in runs))
        raise SystemExit(f"error: the answers of {names} differ, so nothing is written")


def loads(runs: list[dict]) -> list[float]:
    """How busy the machine was: the least and the greatest load."""
    return [round(extreme(run["load"] for run in runs), 1) for extreme in (min, max)]


def join(size: dict, folder: Path) -> dict:
    """The joins of each size, with several times to live, and in batches; DuckDB's profile of Feast's."""

    def measured(
        questions: int, rows: int, hours: int, contestants: list[str], rounds: int, into: list[dict]
    ) -> list[dict]:
        tables, runs = folder / f"{questions}", []
        if not tables.exists():
            child("join", "make", "--folder", tables, "--rows", rows, "--questions", questions)
        for number, contestant in turns(contestants, rounds):
            run = child("join", contestant, "--folder", tables, "--ttl-hours", hours)
            note(f"  {questions:,} x {rows:,}, {hours} h, {contestant}: {run['seconds']:.2f} s")
            runs.append({"round": number, **run})
        agree(runs, "digest")
        into += runs
        return runs

    every: list[dict] = []
    by_size, by_ttl = [], []
    for questions, rows, rounds in size["join"]:
        runs = measured(questions, rows, 168, JOINERS, rounds, every)
        values = figures(runs, "asof", ["seconds", "cpu_seconds", "peak_mb"], {"ratio": "seconds"})
        by_size += [{"questions": questions, "rows": rows} | row for row in values]
    questions, rows, times_to_live, rounds = size["ttl"]
    for hours in times_to_live:
        runs = measured(questions, rows, hours, ["feast", "asof"], rounds, every)
        feast, _ = figures(runs, "asof", [], {"ratio": "seconds", "cpu_ratio": "cpu_seconds"})
        by_ttl.append({"hours": hours} | feast)
    runs = measured(questions, rows, hours, ["feast", "feast_batches"], rounds, every)
    batches = figures(runs, "feast", ["peak_mb"], {"cpu_ratio": "cpu_seconds"})
    plan = child("join", "explain", "--folder", folder / f"{questions}", "--ttl-hours", hours)
    return {"load": loads(every), "runs": by_size, "ttl": by_ttl, "batches": batches, "plan": plan}


def online(size: dict, folder: Path) -> dict:
    """Requests in process, the same with a prediction log, and over HTTP."""
    counts = size["online"]
    runs = child(
        "online", "--home", folder / "home", "--rounds", counts["rounds"], "--requests", counts["requests"]
    )
    agree(runs, "scores")
    ratios = {"p50_ratio": "p50_ms", "p99_ratio": "p99_ms"}
    rows = figures(runs, "in_process", ["p50_ms", "p99_ms"], ratios)
    requests = {run["contestant"]: run["requests"] for run in runs}
    return {"load": loads(runs), "runs": [row | {"requests": requests[row["contestant"]]} for row in rows]}


def course(size: dict, folder: Path) -> dict:
    """All notebooks, as `make run` runs them."""
    notebooks = child("course", "--home", folder / "home", "--before", size["course"]["before"])
    load = loads(notebooks)
    return {"load": load, "notebooks": [{**row, "load": round(row["load"], 1)} for row in notebooks]}


SECTIONS = {"join": join, "online": online, "course": course}


def as_json(value: object, indent: str = "\n") -> str:
    """JSON with a line for each row of a table."""
    deeper = indent + " "
    if isinstance(value, dict) and any(isinstance(inner, list | dict) and inner for inner in value.values()):
        flat = json.dumps(value)
        if len(flat) > 400 or "[{" in flat:
            items = (f"{json.dumps(key)}: {as_json(inner, deeper)}" for key, inner in value.items())
            return f"{{{deeper}{f',{deeper}'.join(items)}{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"[{deeper}{f',{deeper}'.join(json.dumps(row) for row in value)}{indent}]"
    return json.dumps(value)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the course's tools.")
    parser.add_argument("--size", choices=SIZES, default="medium", help="small: a minute; full: an hour")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="some sections")
    parser.add_argument("--out", type=Path, help="folder of performance.md and performance.json")
    arguments = parser.parse_args(argv)
    if arguments.out is None:  # the figures of a small run are not worth a place in docs
        arguments.out = REPOSITORY / ("workspace/bench" if arguments.size == "small" else "docs")
    path, here = arguments.out / "performance.json", machine()
    kept = json.loads(path.read_text()) if path.exists() else {"machine": here}
    elsewhere = kept.pop("machine") != here  # then nothing is replaced before everything is measured
    if elsewhere:
        if set(arguments.only) < set(kept):
            parser.error(
                f"{path} holds the figures of another machine or of other versions. "
                "Leave out --only to measure everything again, or name another folder with --out."
            )
        kept = {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        note(f"{name} ({arguments.size})")
        with tempfile.TemporaryDirectory(prefix="bench ") as folder:
            kept[name] = {"size": arguments.size, **SECTIONS[name](SIZES[arguments.size], Path(folder))}
        if not elsewhere or name == arguments.only[-1]:
            ordered = {name: kept[name] for name in SECTIONS if name in kept}
            path.write_text(as_json({"machine": here, **ordered}) + "\n")
    render = [sys.executable, "-m", "benchmarks.render", "--out", str(arguments.out)]
    return subprocess.call(render, cwd=REPOSITORY)


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: measure, write docs/performance.json, and render it. Standard library alone, so that no child starts with this process's memory.

python -m benchmarks [--size small|medium|full] [--only join ...] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ["feast", "duckdb", "pandas", "mlflow", "optuna", "scikit-learn", "kfp", "kserve", "papermill"]
# (questions, rows, rounds) of the joins; (time to live in hours, rounds) of the second series, at its size; rounds and counts of the rest.
SIZES = {
    "small": {
        "join": [(1_000, 20_000, 1)],
        "ttl": (1_000, 20_000, [24], 1),
        "selection": {"rounds": 1, "subsets": 1},
        "online": {"rounds": 1, "requests": 50},
        "sweep": {"rounds": 1, "trials": 3},
        "step": {"rounds": 1},
        "course": {"rounds": 1, "before": "01"},
    },
    "medium": {
        "join": [(10_000, 100_000, 3), (100_000, 1_000_000, 3)],
        "ttl": (100_000, 1_000_000, [1, 24, 72, 168], 1),
        "selection": {"rounds": 2, "subsets": None},
        "online": {"rounds": 3, "requests": 2000},
        "sweep": {"rounds": 5, "trials": 20},
        "step": {"rounds": 10},
        "course": {"rounds": 1, "before": None},
    },
    "full": {
        "join": [(10_000, 100_000, 5), (100_000, 1_000_000, 5), (1_000_000, 10_000_000, 3)],
        "ttl": (100_000, 1_000_000, [1, 6, 24, 72, 168], 3),
        "selection": {"rounds": 3, "subsets": None},
        "online": {"rounds": 5, "requests": 2000},
        "sweep": {"rounds": 9, "trials": 20},
        "step": {"rounds": 15},
        "course": {"rounds": 2, "before": None},
    },
}
JOINERS = ["feast", "asof", "pandas", "feast_asof"]


def machine() -> dict:
    """What the figures were measured on; no name of the machine, no path."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {name: version(name) for name in PACKAGES}
    system = f"{platform.system()} {platform.machine()}"
    return {
        "cores": cores,
        "memory_gb": round(memory),
        "system": system,
        "python": platform.python_version(),
        "versions": versions,
    }


def child(module: str, *arguments: object, quiet: bool = False) -> object:
    """Run one contestant in a process of its own; gives what it prints last, as JSON.

    Raises:
        SystemExit: it failed; the end of what it said is printed.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, cwd=tempfile.gettempdir(), env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2000:] + done.stderr[-4000:], file=sys.stderr)
        raise SystemExit(f"error: benchmarks.{module} {' '.join(map(str, arguments))} failed; see above")
    return None if quiet else json.loads(done.stdout.strip().splitlines()[-1])


def turns(contestants: list[str], rounds: int):
    """Round by round, each round beginning with another contestant, so that a busy minute hits them all."""
    for number in range(rounds):
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            yield number, contestant


def note(text: str) -> None:
    """Say how far it is."""
    print(text, flush=True)


def join(size: dict, folder: Path) -> dict:
    """The joins at each size, then at one size with several times to live, then DuckDB's account of Feast's query."""
    runs, made = [], {}

    def table(questions: int, rows: int) -> Path:
        if (questions, rows) not in made:
            made[questions, rows] = folder / f"{questions}"
            note(f"  generating {rows:,} rows and {questions:,} questions")
            child(
                "join",
                "make",
                "--folder",
                folder / f"{questions}",
                "--rows",
                rows,
                "--questions",
                questions,
                quiet=True,
            )
        return made[questions, rows]

    def run(questions: int, rows: int, hours: int, number: int, contestant: str, series: str) -> None:
        found = child("join", contestant, "--folder", table(questions, rows), "--ttl-hours", hours)
        note(
            f"  {contestant}, {questions:,} x {rows:,}, {hours} h: {found['seconds']:.2f} s, {found['peak_mb']:.0f} MB"
        )
        key = {"series": series, "questions": questions, "rows": rows, "ttl_hours": hours, "round": number}
        runs.append(key | found)

    def explained(questions: int, rows: int) -> dict:
        return child("join", "explain", "--folder", table(questions, rows))

    for questions, rows, rounds in size["join"]:
        for number, contestant in turns(JOINERS, rounds):
            run(questions, rows, 168, number, contestant, "size")
    questions, rows, hours, rounds = size["ttl"]
    for ttl in hours:
        for number, contestant in turns(["feast", "asof"], rounds):
            run(questions, rows, ttl, number, contestant, "time to live")
    for number, contestant in turns(["feast", "feast_batches"], rounds):
        run(questions, rows, 168, number, contestant, "batches")
    return {"runs": runs, "plan": explained(questions, rows)}


def taking_turns(
    module: str, contestants: list[str], rounds: int, folder: Path, options: list, says: str
) -> list:
    """A home is prepared, once for all sections, and the contestants of a module take turns in it, each on the drivers and on the flights; ``says``
    is what to report of a run."""
    home = folder.parent / "home"
    if not home.exists():
        child("online", "prepare", "--home", home, quiet=True)
    runs = []
    for number, contestant in turns(contestants, rounds):
        for found in child(module, contestant, "--home", home, *options):
            runs.append({"round": number, **found})
            note(f"  {found['data']}, {contestant}: {says.format(**found)}")
    return runs


def selection(size: dict, folder: Path) -> list:
    """The post's loop on both stores, and notebook 04's way."""
    contestants, counts = ["seed", "workshop", "seed_duckdb"], size["selection"]
    options = ["--subsets", counts["subsets"]] if counts["subsets"] else []
    return taking_turns("selection", contestants, counts["rounds"], folder, options, "{seconds:.2f} s")


def online(size: dict, folder: Path) -> list:
    """Requests in process, the same with a prediction log, and over HTTP."""
    contestants, counts = ["in_process", "logged", "over_http"], size["online"]
    options, says = ["--requests", counts["requests"]], "p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms"
    return taking_turns("online", contestants, counts["rounds"], folder, options, says)


def sweep(size: dict, folder: Path) -> list:
    """Trials with and without MLflow."""
    child("selection", "prepare", "--home", folder / "home", quiet=True)
    counts = [part for name, value in size["sweep"].items() for part in (f"--{name}", value)]
    return child("sweep", "--home", folder / "home", *counts)


def step(size: dict, folder: Path) -> list:
    """Pipeline steps that import nothing."""
    return child("step", "--rounds", size["step"]["rounds"])


def course(size: dict, folder: Path) -> list:
    """All notebooks, as `make run` runs them."""
    runs = []
    before = ["--before", size["course"]["before"]] if size["course"]["before"] else []
    for number in range(size["course"]["rounds"]):
        notebooks = child("course", "--home", folder / f"home {number}", *before)
        note(f"  {len(notebooks)} notebooks: {sum(n['seconds'] for n in notebooks):.0f} s")
        runs.append({"round": number, "notebooks": notebooks})
    return runs


SECTIONS = {
    "join": join,
    "selection": selection,
    "online": online,
    "sweep": sweep,
    "step": step,
    "course": course,
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the workshop costs."
    )
    parser.add_argument(
        "--size", choices=SIZES, default="medium", help="small: a minute or two; full: an hour"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="renew these sections alone"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of performance.md and .json: docs, or workspace/bench for --size small",
    )
    arguments = parser.parse_args(argv)
    if arguments.out is None:  # a small run shows that all works; its figures are not worth a place in docs
        arguments.out = REPOSITORY / ("workspace/bench" if arguments.size == "small" else "docs")
    path, here = arguments.out / "performance.json", machine()
    kept = json.loads(path.read_text()) if path.exists() else {}
    sections = kept.get("sections", {}) if kept.get("machine") == here else {}
    if kept and not sections and set(arguments.only) < set(kept["sections"]):
        parser.error(
            f"{path} holds figures of another machine or of other versions, and one table holds those of one machine: "
            "leave --only out to measure all anew, or give another folder with --out"
        )
    with tempfile.TemporaryDirectory(prefix="bench ") as place:
        for name in arguments.only:
            note(f"{name} ({arguments.size})")
            folder = Path(place) / name
            folder.mkdir()
            runs = SECTIONS[name](SIZES[arguments.size], folder)
            shutil.rmtree(folder)
            sections[name] = {"size": arguments.size, "measured": runs}
            ordered = {name: sections[name] for name in SECTIONS if name in sections}
            arguments.out.mkdir(parents=True, exist_ok=True)
            # Of another machine's figures, none goes before all are replaced.
            if set(sections) >= set(kept.get("sections", {})):
                path.write_text(json.dumps({"machine": here, "sections": ordered}, indent=1) + "\n")
    return subprocess.call(
        [sys.executable, "-m", "benchmarks.render", "--out", str(arguments.out)], cwd=REPOSITORY
    )


if __name__ == "__main__":
    sys.exit(main())

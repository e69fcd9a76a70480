"""A local pipeline step beside its own imports: Kubeflow's SubprocessRunner on steps that import nothing.

python -m benchmarks.step --rounds 5
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kfp import dsl, local

from lifecycle.pipeline import local_run

STEPS = 6


@dsl.component(install_kfp_package=False)
def double(number: int) -> int:
    """A step without imports."""
    return 2 * number


@dsl.pipeline(name="one")
def one(number: int) -> int:
    """A chain of one."""
    return double(number=number).output


@dsl.pipeline(name="many")
def many(number: int) -> int:
    """A chain of several."""
    task = double(number=number)
    for _ in range(STEPS - 1):
        task = double(number=task.output)
    return task.output


def timed(call) -> tuple[float, float, object]:
    """Seconds, CPU seconds of this process and its children, and what the call gave."""
    began, cpu = time.perf_counter(), os.times()
    answer = call()
    now = os.times()
    return time.perf_counter() - began, sum(now[:4]) - sum(cpu[:4]), answer


def main(argv: list[str] | None = None) -> None:
    """The command line; prints one list of measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python, runs = sys.executable, []
    with tempfile.TemporaryDirectory() as folder, local_run(Path(folder) / "run.log"):
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder, raise_on_error=True)
        one(number=1)
        for number in range(arguments.rounds):
            load = os.getloadavg()[0]
            short, short_cpu, first = timed(lambda: one(number=1).output)
            long, long_cpu, last = timed(lambda: many(number=1).output)
            bare, bare_cpu, _ = timed(lambda: subprocess.run([python, "-c", "pass"], check=True))
            run = {"round": number, "step_seconds": (long - short) / (STEPS - 1), "python_seconds": bare}
            run |= {"step_cpu_seconds": (long_cpu - short_cpu) / (STEPS - 1), "python_cpu_seconds": bare_cpu}
            runs.append(run | {"one_step_pipeline_seconds": short, "answers": [first, last], "load": load})
    print(json.dumps(runs))


if __name__ == "__main__":
    main()

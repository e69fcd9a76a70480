"""Kubeflow Trainer's local backend with the packages of this environment, and nothing to download.

Trainer 2 (kubeflow 0.5) makes a virtual environment for each local job, with the first ``python`` of the
PATH, and installs what the runtime names into it from an index. Here that ``python`` hands out an environment
that is made already: its commands are those of *this* environment, and activating it sets the job's
variables.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from lifecycle.objects import secrets
from lifecycle.settings import Cluster

RUNTIME = "this-environment"
"""The runtime's name in the local backend."""
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONPATH", "TMPDIR", "TZ", *secrets(Cluster()))
_LOGGED = ("MLFLOW_", "FEAST_", "DO_NOT_TRACK", "GIT_PYTHON_REFRESH")


class LocalRuntime:
    """The runtime ``this-environment``, known to Trainer's local backend of this process.

    As a runtime on a cluster, it brings packages, variables, and the number of processes of a node, so that a
    job names its function, its arguments, and the number of nodes alone.

    Args:
        processes: that ``torchrun`` starts for a job. The backend has one node, and ignores ``num_nodes``.

    Attributes:
        name: of the runtime.
        folder: for what jobs share; deleted with this object.
    """

    def __init__(self, processes: int) -> None:
        from kubeflow.trainer import Runtime, RuntimeKind
        from kubeflow.trainer.backends.localprocess import constants
        from kubeflow.trainer.backends.localprocess.types import LocalRuntimeTrainer
        from kubeflow.trainer.types.types import TrainerType

        self.name = RUNTIME
        # The backend writes paths into a shell script without quotes: they must hold nothing that a shell
        # reads.
        self._own = tempfile.TemporaryDirectory(prefix="trainer-")
        self.folder = Path(self._own.name)
        self._environment(processes)
        python = shlex.quote(sys.executable)
        made = self.folder / "environment"
        # Asked for an environment (python -m venv --without-pip FOLDER), it hands out the one above.
        self._command(
            self.folder / "bin" / "python",
            f'case "$1 $2" in "-m venv") exec cp -R {made}/bin "$4/";; *) exec {python} "$@";; esac',
        )
        os.environ["PATH"] = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", "")])
        trainer = LocalRuntimeTrainer(
            trainer_type=TrainerType.CUSTOM_TRAINER, framework="torch", packages=[], image="local"
        )
        constants.local_runtimes[:] = [
            runtime for runtime in constants.local_runtimes if runtime.name != RUNTIME
        ]
        constants.local_runtimes.append(
            Runtime(name=RUNTIME, trainer=trainer, kind=RuntimeKind.TRAINING_RUNTIME)
        )

    def _environment(self, processes: int) -> None:
        """What a job activates, and the two commands that it calls."""
        place = self.folder / "environment" / "bin"
        python = shlex.quote(sys.executable)
        # pip is here already, so there is none to install.
        self._command(place / "python", f'case "$1 $2" in "-m ensurepip") ;; *) exec {python} "$@";; esac')
        self._command(place / "torchrun", f'exec {python} -m torch.distributed.run "$@"')
        # The backend passes on nothing of this process's by itself.
        variables = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED_ON or name.startswith(_LOGGED)
        } | {
            # torchrun's own settings, as variables. Its processes, and then the workers, find each other by a
            # file: no port is opened for it.
            "PET_NPROC_PER_NODE": str(processes),
            "PET_RDZV_BACKEND": "c10d",
            "PET_RDZV_CONF": "store_type=file",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
            "OMP_NUM_THREADS": "1",
        }
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        lines += [
            f"meeting=$(mktemp -d {self.folder}/job-XXXXXX)",
            "export PET_RDZV_ENDPOINT=$meeting/agents LIFECYCLE_RENDEZVOUS=$meeting/workers",
        ]
        (place / "activate").write_text("\n".join(lines) + "\n", encoding="utf-8")

    @staticmethod
    def _command(path: Path, line: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        path.chmod(0o755)

    def remove(self, job: str) -> int:
        """Delete the environments that the jobs of this name have left; gives their number.

        The backend deletes only that of a job that completed.
        """
        # The backend's `mkdtemp(prefix=job)` adds eight characters: `job10's` is longer.
        left = [
            path
            for path in Path(tempfile.gettempdir()).glob(f"{glob.escape(job)}{'?' * 8}")
            if (path / "bin" / "torchrun").exists()
        ]
        for path in left:
            shutil.rmtree(path)
        return len(left)


def train_and_lose_a_worker(parameters: dict | None = None, **named: object) -> None:
    """Train as one worker of several, and kill worker 1 after epoch 110. Shipped as text, too.

    Args:
        parameters: the arguments of work, in lifecycle/src/lifecycle/training/distributed.py.
        named: the same.
    """
    import os
    import signal

    from lifecycle.training.distributed import work

    def lose(rank: int, epoch: int) -> None:
        if rank == 1 and epoch == 110:
            os.kill(os.getpid(), signal.SIGKILL)

    work(**(parameters or named), after_epoch=lose)

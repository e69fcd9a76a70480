"""Kubeflow Trainer's local backend with the packages of this environment, and nothing to download.

Trainer 2 (kubeflow 0.5) makes a virtual environment for each local job, and installs what the runtime names
into it from an index. Here the runtime names one package of a few hundred bytes, made on the spot: it makes
the packages of *this* environment importable in the job's, and brings the command ``torchrun``, by which the
backend starts a job of the framework torch.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

RUNTIME = "this-environment"
"""The runtime's name in the local backend."""
PACKAGE = "this-environment"
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONPATH", "TMPDIR", "TZ")
_LOGGED = ("MLFLOW_", "FEAST_", "DO_NOT_TRACK", "GIT_PYTHON_REFRESH")


def _wheel(folder: Path) -> None:
    """Write the package. A line of a .pth file that begins with ``import`` is executed when Python starts."""
    name = PACKAGE.replace("-", "_")
    places = dict.fromkeys([sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]])
    lines = "".join(f"import site; site.addsitedir({place!a})\n" for place in places)
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.pth": lines,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntorchrun = torch.distributed.run:main\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)


class LocalRuntime:
    """The runtime ``this-environment``, known to Trainer's local backend of this process.

    Attributes:
        name: of the runtime.
        packages: for ``CustomTrainer(packages_to_install=...)``.
        folder: for what jobs share; deleted with this object.
    """

    def __init__(self) -> None:
        from kubeflow.trainer import Runtime, RuntimeKind
        from kubeflow.trainer.backends.localprocess import constants
        from kubeflow.trainer.backends.localprocess.types import LocalRuntimeTrainer
        from kubeflow.trainer.types.types import TrainerType

        self.name, self.packages = RUNTIME, [PACKAGE]
        # The backend writes paths into a shell script without quotes: they must hold nothing that a shell
        # reads.
        self._own = tempfile.TemporaryDirectory(prefix="trainer-")
        self.folder = Path(self._own.name)
        _wheel(self.folder)
        # It takes the first `python` of the PATH to make environments with.
        command = self.folder / "bin" / "python"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        command.chmod(0o755)
        os.environ["PATH"] = os.pathsep.join([str(command.parent), os.environ.get("PATH", "")])
        trainer = LocalRuntimeTrainer(
            trainer_type=TrainerType.CUSTOM_TRAINER, framework="torch", packages=self.packages, image="local"
        )
        constants.local_runtimes[:] = [
            runtime for runtime in constants.local_runtimes if runtime.name != RUNTIME
        ]
        constants.local_runtimes.append(
            Runtime(name=RUNTIME, trainer=trainer, kind=RuntimeKind.TRAINING_RUNTIME)
        )

    def variables(self, workers: int) -> dict[str, str]:
        """The environment of a job with ``workers`` processes.

        The backend passes on nothing of this process's by itself.
        """
        found = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED_ON or name.startswith(_LOGGED)
        }
        meeting = tempfile.mkdtemp(dir=self.folder)
        return found | {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.folder.as_uri(),
            # torchrun's own settings, as variables. Its processes, and then the workers, find each other by a
            # file: no port is opened for it.
            "PET_NPROC_PER_NODE": str(workers),
            "PET_RDZV_BACKEND": "c10d",
            "PET_RDZV_ENDPOINT": f"{meeting}/agents",
            "PET_RDZV_CONF": "store_type=file",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "LIFECYCLE_RENDEZVOUS": f"{meeting}/workers",
            "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
            "OMP_NUM_THREADS": "1",
        }

    def remove(self, job: str) -> int:
        """Delete the environments that the jobs of this name have left; gives their number.

        The backend deletes only that of a job that completed.
        """
        # The backend's `mkdtemp(prefix=job)` adds eight characters: `job10's` is longer.
        left = [
            path
            for path in Path(tempfile.gettempdir()).glob(f"{glob.escape(job)}{'?' * 8}")
            if (path / "pyvenv.cfg").exists()
        ]
        for path in left:
            shutil.rmtree(path)
        return len(left)


def train_and_lose_a_worker(parameters: dict | None = None, **named: object) -> None:
    """Train as one worker of several, but worker 1 is killed after epoch 110. Shipped as text as well.

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

"""`make image`: the container image of cluster/Dockerfile, by docker or podman, with or without a network."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.workspace import REPOSITORY, WorkshopError
from lifecycle import IMAGE

ENGINES = ("docker", "podman")
DOCKERFILE = "cluster/Dockerfile"
_ASK = {"docker": "version", "podman": "info"}  # what fails while the engine cannot work


def engine(name: str = "") -> str:
    """The container engine to use.

    Args:
        name: of the one that is wanted; docker, then podman, whichever answers first, when left out.

    Raises:
        WorkshopError: there is none, or none that answers.
    """
    if name and not shutil.which(name):
        raise WorkshopError(
            f"ENGINE={name}: no such program is on the PATH. Install it, or leave ENGINE out."
        )
    there = [found for found in ([name] if name else ENGINES) if shutil.which(found)]
    if not there:
        raise WorkshopError(
            "no container engine is here: neither docker nor podman is on the PATH. Install one of them. "
            "All notebooks run without it."
        )
    for found in there:
        asked = subprocess.run([found, _ASK.get(found, "version")], capture_output=True, text=True)
        if asked.returncode == 0:
            return found
    said = asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"]
    raise WorkshopError(
        f"{' and '.join(there)}: installed, but it does not answer ({said[-1]}). "
        "Start its service (for Docker on Linux: sudo systemctl start docker), or name another engine: ENGINE=podman."
    )


def there(engine: str, image: str = IMAGE) -> bool:
    """Whether the engine holds the image.

    Args:
        engine: its program.
        image: name and tag.
    """
    return subprocess.run([engine, "image", "inspect", image], capture_output=True).returncode == 0


def lay_out(context: Path, wheels: Path | None) -> None:
    """Put what the build may read into a folder: what .dockerignore lets through, the Dockerfile, and the wheels.

    Args:
        context: an empty folder.
        wheels: a folder that `make wheels` filled; None when the build fetches its packages.

    Raises:
        WorkshopError: ``wheels`` holds none.
    """
    patterns = [
        line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    for source in [path for pattern in [DOCKERFILE, *patterns] for path in sorted(REPOSITORY.glob(pattern))]:
        target = context / source.relative_to(REPOSITORY)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)
    if wheels is None:
        return
    if not any(wheels.glob("uv-*.whl")):
        raise WorkshopError(f"WHEELS={wheels} is no folder that `make wheels` filled.")
    (context / "wheels").mkdir()
    for source in wheels.iterdir():
        try:
            os.link(source, context / "wheels" / source.name)
        except OSError:  # on another disk
            shutil.copy(source, context / "wheels")


def build(engine: str, base: str = "", wheels: Path | None = None) -> None:
    """Build the image; the engine's own output is shown.

    Args:
        engine: its program.
        base: image to build on; the Dockerfile's own when left out.
        wheels: a folder that `make wheels` filled: then the build has no network. None: it fetches from the package index.

    Raises:
        WorkshopError: the wheels are not there, or the engine could not build.
    """
    command = [engine, "build", "--file", DOCKERFILE, "--tag", IMAGE]
    command += ["--format", "docker"] if engine == "podman" else []  # its own format has no health check
    command += ["--build-arg", f"BASE={base}"] if base else []
    command += ["--network", "none"] if wheels else []
    if not wheels and os.environ.get("PIP_INDEX_URL"):
        command += [
            "--build-arg",
            "PIP_INDEX_URL",
        ]  # without a value: the engine takes it from the environment
    command += ["--build-arg", f"REVISION={revision}"] if (revision := _revision()) else []
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        lay_out(Path(folder), wheels)
        if subprocess.run([*command, "."], cwd=folder).returncode:
            raise WorkshopError(
                f"{engine} did not build {IMAGE}; its last lines above say why. Without a network, give WHEELS= and a BASE= "
                "that the engine holds; the wheels must be for that base's system and minor version of Python."
            )


def _revision() -> str:
    """Of the clone; empty where there is no git, or no clone."""
    if not shutil.which("git"):
        return ""
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.strip()


def main(argv: list[str] | None = None) -> int:
    """The command line.

    Args:
        argv: its words; those of the process when left out.
    """
    parser = argparse.ArgumentParser(prog="python -m workshop.image", description=__doc__)
    parser.add_argument("--engine", default="", help="docker or podman; whichever answers when left out")
    parser.add_argument("--base", default="", help="image to build on")
    parser.add_argument(
        "--wheels", type=Path, help="folder that `make wheels` filled: then nothing is fetched"
    )
    given = parser.parse_args(argv)
    try:
        found = engine(given.engine)
        build(found, given.base, given.wheels.resolve() if given.wheels else None)
    except WorkshopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = subprocess.run(
        [found, "image", "inspect", "--format", "{{.Size}}", IMAGE], capture_output=True, text=True
    )
    print(f"{IMAGE} is built: {int(size.stdout) / 1e9:.1f} GB, held by {found}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

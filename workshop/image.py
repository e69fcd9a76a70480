"""`make image` and `make lab-image`: the container images of cluster/Dockerfile, by docker or podman, with or
without a network."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from helpers.workspace import REPOSITORY, WorkshopError
from lifecycle.settings import DISTRIBUTED, IMAGE, Cluster

DOCKERFILE = "cluster/Dockerfile"
LAB = IMAGE.replace(":", "-lab:")


def engine(name: str = "") -> str:
    """The container engine to use: ``name``, or whichever of docker and podman answers first.

    Raises:
        WorkshopError: none is installed, or none answers.
    """
    here = [found for found in ([name] if name else ["docker", "podman"]) if shutil.which(found)]
    if not here and name:
        raise WorkshopError(
            f"ENGINE={name}: no such program is on the PATH. Install it, or leave ENGINE out."
        )
    if not here:
        raise WorkshopError(
            "no container engine is here: neither docker nor podman is on the PATH. Install one of them. "
            "All notebooks run without it."
        )
    for found in here:
        asked = subprocess.run([found, "ps"], capture_output=True, text=True)
        if asked.returncode == 0:
            return found
    said = asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"]
    raise WorkshopError(
        f"{' and '.join(here)}: installed, but it does not answer ({said[-1]}). Start its service (for "
        "Docker "
        "on Linux: sudo systemctl start docker), or name another engine: ENGINE=podman."
    )


def build(
    engine: str,
    base: str = "",
    wheels: Path | None = None,
    extra: str = "",
    index: str = "",
    network: str = "",
    ca: Path | None = None,
    lab: bool = False,
) -> str:
    """Build the image; the engine's own output is shown. Gives the image's name.

    Args:
        engine: its program.
        base: image to build on; the Dockerfile's own when left out.
        wheels: a folder that `make wheels` filled: then the build has no network. None: it fetches its
            packages.
        extra: ``distributed`` adds PyTorch.
        index: address of a package index to look for PyTorch in first.
        network: of the engine, for the build; its own choice when left out. With wheels there is none.
        ca: PEM file with the certificates of a private authority, which the build trusts beside the public
            ones. They are not in the finished image.
        lab: the learners' image, which `docker compose up` starts.

    Raises:
        WorkshopError: the wheels or the certificates are not there, the address holds a password, or the
            engine could not build.
    """
    if "@" in urlsplit(index).netloc:
        raise WorkshopError("INDEX holds a user or a password, which the image's history would show.")
    if ca and not (ca.is_file() and "BEGIN CERTIFICATE" in ca.read_text(errors="replace")):
        raise WorkshopError(
            f"CA={ca} is no file with certificates in PEM form (-----BEGIN CERTIFICATE-----)."
        )
    name = LAB if lab else Cluster(image=IMAGE).image_with_torch if extra else IMAGE
    command = [engine, "build", "--file", DOCKERFILE, "--tag", name]
    command += ["--target", "lab" if lab else "lifecycle"]
    command += ["--build-arg", f"EXTRA={extra}"] if extra else []
    command += ["--build-arg", f"INDEX={index}"] if index else []
    command += ["--format", "docker"] if engine == "podman" else []  # its own format has no health check
    command += ["--build-arg", f"BASE={base}"] if base else []
    network = "none" if wheels else network
    command += ["--network", network] if network else []
    # Without a value: the engine takes it from the environment, and no list of processes shows it.
    command += ["--build-arg", "PIP_INDEX_URL"] if os.environ.get("PIP_INDEX_URL") and not wheels else []
    if shutil.which("git"):
        asked = ["git", "rev-parse", "HEAD"]
        revision = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
        command += ["--build-arg", f"REVISION={revision}"] if revision else []
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        _lay_out(Path(folder), wheels)
        if ca:
            shutil.copy(ca, Path(folder) / "ca.pem")
        if subprocess.run([*command, "."], cwd=folder).returncode:
            raise WorkshopError(
                f"{engine} did not build {name}; its last lines above say why. CERTIFICATE_VERIFY_FAILED: "
                "give CA= with your company's certificates. No route to the index: NETWORK=host. Without a "
                "network: WHEELS= and a BASE= that the engine holds; the wheels must be for that base's "
                "system and minor version of Python."
            )
    return name


def _lay_out(context: Path, wheels: Path | None) -> None:
    """What the build may read: what .dockerignore lets through, the Dockerfile, and wheels from wherever they
    are."""
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for pattern in [DOCKERFILE, *(line[1:] for line in ignored if line.startswith("!"))]:
        for source in REPOSITORY.glob(pattern):
            target = context / source.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    if wheels and not any(wheels.glob("uv-*.whl")):
        raise WorkshopError(f"WHEELS={wheels} is no folder that `make wheels` filled.")
    if wheels:
        shutil.copytree(wheels, context / "wheels", copy_function=_link)


def _link(source: str, target: str) -> None:
    """The wheels are half a gigabyte; a link to each costs nothing where both are on one file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workshop.image", description=__doc__)
    parser.add_argument("--engine", default="", help="docker or podman; whichever answers when left out")
    parser.add_argument("--base", default="", help="image to build on")
    parser.add_argument(
        "--wheels", type=Path, help="folder that `make wheels` filled: then nothing is fetched"
    )
    parser.add_argument("--extra", default="", choices=["", DISTRIBUTED], help="distributed: with PyTorch")
    parser.add_argument("--index", default="", help="of PyTorch: a package index to look in first")
    parser.add_argument("--network", default="", help="of the engine, for the build, such as host")
    parser.add_argument("--ca", type=Path, help="PEM file with the certificates of a private authority")
    parser.add_argument("--lab", action="store_true", help="the learners' image")
    given = parser.parse_args(argv)
    try:
        found = engine(given.engine)
        wheels = given.wheels.resolve() if given.wheels else None
        name = build(found, given.base, wheels, given.extra, given.index, given.network, given.ca, given.lab)
    except WorkshopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{name} is built, and held by {found}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

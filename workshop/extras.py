"""Adds to the environment what some notebooks need beyond the default groups of the lock: `make distributed`.

python -m workshop.extras GROUP [--index URL]     adds a group, and remembers it
python -m workshop.extras again                   adds all that are remembered: part of every set-up

uv installs the lock's versions, and checks the lock's hashes. A package may come from another index or folder
than the lock names, and there be another build of its version, such as ``2.13.0+cpu`` for ``2.13.0``, which
has a hash of its own: the index is the user's choice, and so is the trust in that build. With ``WHEELS``, the
packages come from that folder alone, as those of the default groups do.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from helpers import course, extras
from helpers.workspace import REPOSITORY, WorkshopError
from workshop.index import settings

ADDED = REPOSITORY / ".extras"
"""A line for each group that was added, with its index: a new lock or a moved clone makes the environment
anew."""


def remembered() -> dict[str, str]:
    """The groups that were added to this clone, and for each the index that it came from, empty for none of
    its own."""
    lines = ADDED.read_text(encoding="utf-8").splitlines() if ADDED.exists() else []
    return {group: index for group, _, index in (line.partition(" ") for line in lines) if group}


def add(group: str, index: str = "", python: str = sys.executable) -> None:
    """Install a dependency group beside what is there, and remember it.

    Args:
        group: of pyproject.toml, one that a notebook or the website needs.
        index: address of a package index to look in first; empty for the user's own settings of uv and pip
            alone.
        python: of the environment.

    Raises:
        WorkshopError: nothing needs this group, the address holds a password, or uv could not install it.
    """
    groups = sorted({*course.extras(), "site"})
    if group not in groups:
        raise WorkshopError(f"there is no extra {group!r}; there are {', '.join(groups)}.")
    if "@" in urlsplit(index).netloc:
        raise WorkshopError(
            "INDEX holds a user or a password, and would be written to a file. Put it into pip's or uv's "
            "own settings."
        )
    where = {**os.environ, **settings()}
    if index:
        where["UV_INDEX"] = f"{index} {where.get('UV_INDEX', '')}".strip()
    if wheels := os.environ.get("WHEELS"):
        where |= {"UV_FIND_LINKS": Path(wheels).resolve().as_uri(), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    export = [uv, "export", "--quiet", "--frozen", "--offline", "--no-emit-workspace", "--group", group]
    locked = subprocess.run(export, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        constraints, wanted = Path(folder, "constraints.txt"), Path(folder, "wanted.txt")
        wanted.write_text("\n".join(map(str, extras.requirements(group))), encoding="utf-8")

        def run(*command: str, pipe: int | None = None) -> subprocess.CompletedProcess:
            # By default uv would take a package from the first index that has any version of it, not the best
            # one.
            options = [
                "--python",
                python,
                "--constraint",
                str(constraints),
                "--index-strategy=unsafe-best-match",
            ]
            constraints.write_text(locked, encoding="utf-8")
            return subprocess.run(
                [uv, "pip", *command, *options], cwd=REPOSITORY, env=where, stdout=pipe, text=True
            )

        done = run("compile", "--quiet", "--no-header", "--no-annotate", str(wanted), pipe=subprocess.PIPE)
        for name in re.findall(r"(?m)^(\S+)==[^\s+]+\+\S+", done.stdout):  # another build than the lock's
            locked = re.sub(
                rf"(?m)^({re.escape(name)}==[^\n\\]*)\\\n(?: +--hash=\S+(?: \\)?\n)+", r"\1\n", locked
            )
        done = done if done.returncode else run("install", "-r", str(wanted))
    if done.returncode:
        raise WorkshopError(
            f"{group} was not added; uv says above why. To look in another place: make {group} INDEX=address"
        )
    added = remembered() | {group: index}
    ADDED.write_text(
        "".join(f"{name} {place}".rstrip() + "\n" for name, place in added.items()), encoding="utf-8"
    )


def again() -> None:
    """Add what was added before. What cannot be added is reported, and does not stop the set-up."""
    for group, index in remembered().items():
        try:
            add(group, index)
        except WorkshopError as error:
            print(f"note: {error}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workshop.extras", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "group", help="a dependency group that a notebook needs, or `again` for all that were added"
    )
    parser.add_argument("--index", default="", metavar="URL", help="a package index to look in first")
    arguments = parser.parse_args(argv)
    try:
        again() if arguments.group == "again" else add(arguments.group, arguments.index)
    except WorkshopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

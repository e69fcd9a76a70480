"""Adds to the environment what some notebooks need beyond the default groups of the lock: `make distributed`.

python -m workshop.extras GROUP [--index URL]     adds a group, and remembers it
python -m workshop.extras again                   adds all that are remembered: part of every set-up

uv installs it. The versions are the lock's, and each package that is the lock's has the lock's hash. It may come from another index or folder
than the lock names, and be another build of the locked version, such as ``2.13.0+cpu`` for ``2.13.0``: the index is the user's choice, and so
is the trust in that build.
"""

from __future__ import annotations

import argparse
import ast
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

ADDED = REPOSITORY / ".extras"
"""A line for each group that was added, with its index: a changed lock and a moved clone make the environment anew, and bring them along."""


def remembered(record: Path | None = None) -> dict[str, str]:
    """The groups that were added to this clone, and for each the index that it came from, empty for none of its own."""
    record = record or ADDED
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return {group: index for group, _, index in (line.partition(" ") for line in lines) if group}


def add(group: str, index: str = "", python: str = sys.executable) -> None:
    """Install a dependency group beside what is there, and remember it.

    Args:
        group: of pyproject.toml, one that a notebook needs.
        index: address of a package index to look in first; empty for the user's own settings alone.
        python: of the environment.

    Raises:
        WorkshopError: no notebook needs this group, the address holds a password, or uv could not install it.
    """
    known = sorted(course.extras())
    if group not in known:
        raise WorkshopError(f"there is no extra {group!r}; there are {', '.join(known)}.")
    if "@" in urlsplit(index).netloc:
        raise WorkshopError(
            "INDEX holds a user or a password, and would be written to a file. Put it into pip's or uv's own settings."
        )
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    where, flags = settings(index, _of_pip(), dict(os.environ))
    export = [uv, "export", "--quiet", "--frozen", "--offline", "--no-emit-project", "--group", group]
    locked = subprocess.run(export, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        constraints, wanted = Path(folder, "constraints.txt"), Path(folder, "wanted.txt")
        constraints.write_text(locked, encoding="utf-8")
        wanted.write_text("\n".join(map(str, extras.requirements(group))), encoding="utf-8")
        # Of all indexes the best match: by default uv would take each package from the first index that has any version of it.
        # The lock's versions and hashes hold, so that no index can slip in another package.
        options = [
            "--python",
            python,
            "--constraint",
            str(constraints),
            "--index-strategy",
            "unsafe-best-match",
            *flags,
        ]
        compile_ = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *options, str(wanted)]
        done = subprocess.run(compile_, cwd=REPOSITORY, env=where, stdout=subprocess.PIPE, text=True)
        if not done.returncode:
            constraints.write_text(without_hashes(locked, builds(done.stdout)), encoding="utf-8")
            done = subprocess.run(
                [uv, "pip", "install", *options, "-r", str(wanted)], cwd=REPOSITORY, env=where, text=True
            )
    if done.returncode:
        raise WorkshopError(
            f"{group} was not added; uv says above why. To look in another place: make {group} INDEX=address"
        )
    groups = remembered() | {group: index}
    ADDED.write_text(
        "".join(f"{name} {place}".rstrip() + "\n" for name, place in groups.items()), encoding="utf-8"
    )


def builds(chosen: str) -> list[str]:
    """The names of the packages of which another build than the lock's was chosen, such as ``2.13.0+cpu``.

    Args:
        chosen: a line ``name==version`` for each package.
    """
    return re.findall(r"(?m)^(\S+)==[^\s+]+\+\S+", chosen)


def without_hashes(locked: str, names: list[str]) -> str:
    """Requirements as uv exports them, without the hashes of the packages that are named: they are those of the lock's build."""
    for name in names:
        locked = re.sub(
            rf"(?m)^({re.escape(name)}==[^\n\\]*?) *\\\n(?: +--hash=\S+(?: \\)?\n)+", r"\1\n", locked
        )
    return locked


def settings(
    index: str, pips: dict[str, str], environment: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Where uv looks for packages: in the index that was given, then where the user's settings of uv say, or else those of pip.

    Args:
        index: address of an index to look in first, or empty.
        pips: pip's settings by their names, such as ``find-links``.
        environment: of this process.

    Returns:
        The environment for uv, and options.
    """
    told = {
        "UV_DEFAULT_INDEX": pips.get("index-url", ""),
        "UV_INDEX": " ".join(pips.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(pips.get("find-links", "").split()),
    }
    where = {**{name: value for name, value in told.items() if value}, **environment}
    if index:
        where["UV_INDEX"] = f"{index} {where.get('UV_INDEX', '')}".strip()
    return where, ["--no-index"] if pips.get("no-index", "").lower() in ("1", "true", "yes", "on") else []


def _of_pip() -> dict[str, str]:
    """pip's settings, by name: from its files, and over them from the environment."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    found = {}
    for section in ("global.", "install.", ":env:."):
        for line in done.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section):
                found[name.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def again() -> None:
    """Add what was added before. What cannot be added is told, and does not stop the set-up."""
    for group, index in remembered().items():
        try:
            add(group, index)
        except WorkshopError as error:
            print(f"note: {error}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workshop.extras", description="Add what some notebooks need."
    )
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

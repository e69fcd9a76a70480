"""What the canary workflow needs: the direct dependencies without upper bounds, and the text of its issue.

python canary.py requirements           prints each direct dependency, at least at today's version
python canary.py notebooks              runs notebooks 01 to 07 in workspace/canary
python canary.py report LOG [LOG ...]   prints the end of each log that exists, as the text of an issue
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

LINES = 80  # of each log: the end of pytest's output names the failed tests


def requirements(project: Path) -> list[str]:
    """The direct dependencies of a pyproject.toml, each from the version that its pin names, open above.

    Raises:
        SystemExit: a dependency names no version to start from.
    """
    found = []
    read = tomllib.loads(project.read_text())
    own = read["tool"]["uv"]["sources"]  # of this repository, on no index
    for text in read["project"]["dependencies"]:
        if text.partition("[")[0] in own:
            continue
        requirement = Requirement(text)
        lower = [each.version for each in requirement.specifier if each.operator in ("==", ">=", "~=")]
        if not lower:
            sys.exit(f"error: {text!r} in {project} has no lower bound; write one, such as >=1.0")
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        found.append(f"{requirement.name}{extras}>={lower[0]}")
    return found


def notebooks() -> int:
    """Run notebooks 01 to 07 in a new home; returns the exit code."""
    from helpers.workspace import create_home
    from workshop import runner

    home = create_home(Path("workspace/canary").resolve())
    return runner.run_and_report(runner.choose(first="01", before="08"), home)


def report(logs: list[Path]) -> str:
    """The end of each log, indented: what a log holds is never read as Markdown."""
    parts = ["With the newest versions of the direct dependencies, the canary failed."]
    for log in logs:
        if log.exists():
            lines = log.read_text(errors="replace").splitlines()[-LINES:]
            parts.append(f"### {log.stem}\n\n" + "\n".join(f"    {line[:500]}" for line in lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "requirements":
        print("\n".join(requirements(Path("pyproject.toml"))))
    elif sys.argv[1] == "notebooks":
        sys.exit(notebooks())
    else:
        print(report([Path(name) for name in sys.argv[2:]]), end="")

"""Audit every version of uv.lock against a vulnerability database, and fail when nothing was looked up.

pip-audit also reports "no known vulnerabilities" when what answered was no database. So the first question is
about a version whose vulnerability has been public for years. Unless the database finds it, its silence means
nothing.

Arguments are passed on to pip-audit: ``--osv-url URL`` asks another database that speaks OSV's protocol, and
``--ignore-vuln ID`` accepts a finding. The exit code is 0 only when all versions were looked up and none is
known as vulnerable.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LOCK = Path("uv.lock")
CANARY = ("requests", "2.19.0")  # CVE-2018-18074: sends the password of one host to another


def locked(lock: Path) -> set[tuple[str, str]]:
    """Name and version of each package that the lock takes from an index, for all systems and Pythons."""
    packages = tomllib.loads(lock.read_text())["package"]
    return {(package["name"], package["version"]) for package in packages if "registry" in package["source"]}


def audit(pins: set[tuple[str, str]], options: list[str]) -> dict[tuple[str, str], list[str]]:
    """The vulnerabilities' ids of each pin that the database was asked about.

    Raises:
        SystemExit: pip-audit gave no report: the database cannot be reached, or does not speak its protocol.
    """
    found: dict[tuple[str, str], list[str]] = {}
    left = sorted(pins)
    while left:  # pip-audit takes one version of a package at a time; the lock may hold one for each Python
        batch = dict(left)
        left = [pin for pin in left if batch[pin[0]] != pin[1]]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write("".join(f"{name}=={version}\n" for name, version in batch.items()))
            requirements.flush()
            command = [
                sys.executable,
                "-m",
                "pip_audit",
                "--vulnerability-service",
                "osv",
                "--format",
                "json",
            ]
            command += ["--progress-spinner", "off", "--no-deps", "--disable-pip", "-r", requirements.name]
            done = subprocess.run([*command, *options], capture_output=True, text=True)
        try:
            report = json.loads(done.stdout)["dependencies"]
        except ValueError:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            sys.exit(f"error: the database cannot be reached or read, so this audit proves nothing: {reason}")
        for package in report:
            if "version" in package:  # else it was skipped
                found[package["name"], package["version"]] = [known["id"] for known in package["vulns"]]
    return found


def main(options: list[str]) -> None:
    """Audit the canary, then the lock of the current folder."""
    pins = locked(LOCK)
    if not audit({CANARY}, options).get(CANARY):
        sys.exit(
            f"error: the database knows nothing against {'=='.join(CANARY)}, whose vulnerability is public: "
            "what answered is no vulnerability database, so this audit proves nothing"
        )
    found = audit(pins, options)
    missing = sorted(pins - found.keys())
    if missing or not pins:
        names = ", ".join("==".join(pin) for pin in missing[:5])
        sys.exit(
            f"error: {len(pins) - len(missing)} of the lock's {len(pins)} versions were audited; not: {names}"
        )
    vulnerable = {pin: ids for pin, ids in sorted(found.items()) if ids}
    for (name, version), ids in vulnerable.items():
        print(f"{name}=={version}: {', '.join(ids)}")
    if vulnerable:
        sys.exit(f"error: {len(vulnerable)} of {len(pins)} locked versions have known vulnerabilities")
    print(f"{len(pins)} locked versions audited, none known as vulnerable; the canary was found")


if __name__ == "__main__":
    main(sys.argv[1:])

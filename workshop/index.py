"""Where pip looks for packages, as uv's variables: ``eval "$(python -m workshop.index)"``.

The set-up runs it before anything is installed, so it imports the standard library alone. uv reads none of
pip's settings, and a company's laptops usually have these.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys

_PIPS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}


def settings() -> dict[str, str]:
    """pip's files, and over them its environment; a variable of uv's that is set stays as it is."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    found = {}
    for section in ("global.", "install.", ":env:."):
        for line in done.stdout.splitlines():
            name, _, value = line.partition("=")
            if variable := _PIPS.get(name.removeprefix(section)):
                between = "," if variable == "UV_FIND_LINKS" else " "
                found[variable] = between.join(str(ast.literal_eval(value)).split())
    return {name: value for name, value in found.items() if not os.environ.get(name)}


if __name__ == "__main__":
    for variable, place in settings().items():
        print(f"export {variable}={shlex.quote(place)}")

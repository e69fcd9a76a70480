"""In front of PYTHONPATH, this notes how long each process spends in imports, in the folder WORKSHOP_IMPORTS.

One line for each outermost import: when it ended, seconds, name.
"""

import builtins
import os
import sys
import threading
import time

_folder = os.environ.get("WORKSHOP_IMPORTS")
if _folder:
    _import, _here = builtins.__import__, threading.local()
    _kind = "kernel" if "ipykernel" in " ".join(sys.orig_argv) else "other"
    _file = os.path.join(_folder, f"{_kind}-{os.getpid()}.txt")

    def _timed(name, *rest, **options):
        if getattr(_here, "inside", False):
            return _import(name, *rest, **options)
        _here.inside, began = True, time.perf_counter()
        try:
            return _import(name, *rest, **options)
        finally:
            _here.inside, seconds = False, time.perf_counter() - began
            if seconds > 0.002:
                with open(_file, "a", encoding="utf-8") as file:
                    file.write(f"{time.time():.3f} {seconds:.4f} {name}\n")

    builtins.__import__ = _timed

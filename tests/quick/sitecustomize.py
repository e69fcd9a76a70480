"""Makes `import feast` three times as quick: the tests start some two hundred processes that do it.

It keeps the code that typeguard makes of Feast's classes. And it hides PyTorch, which is there for notebook
09, from two packages that import it where it is installed and do without where it is not: Feast, and skops,
which imports all of scikit-learn. And it collects garbage less often. conftest.py puts this folder into
PYTHONPATH.
"""

import atexit
import gc
import importlib.abc
import importlib.util
import marshal
import os
import sys
import zlib
from pathlib import Path
from types import FunctionType

FOLDER = Path(__file__).resolve().parent.parent.parent / ".pytest_cache" / "typeguard"
DO_WITHOUT = {"feast.torch_wrapper", "sklearn.externals.array_api_compat._internal"}
COPIED = ("__module__", "__qualname__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__")
kept, changed = {}, set()


class WithoutTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torch":
            caller = sys._getframe(1)
            while caller and caller.f_globals["__name__"].startswith("importlib"):
                caller = caller.f_back
            if caller and caller.f_globals["__name__"] in DO_WITHOUT:
                raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return None


class AtTypeguard(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != "typeguard._decorators":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            original = module.instrument
            module.instrument = lambda function: instrumented(function, original)

        spec.loader.exec_module = exec_module
        return spec


def instrumented(function, original):
    code = getattr(function, "__code__", None)
    if code is None or code.co_freevars or not code.co_filename.endswith(".py"):
        return original(function)
    of = (sys.version, code.co_filename, Path(code.co_filename).stat().st_mtime_ns)
    file = FOLDER / f"{zlib.crc32(repr(of).encode()):08x}.code"
    if file not in kept:
        try:
            kept[file] = marshal.loads(file.read_bytes())
        except (OSError, ValueError, EOFError):
            kept[file] = {}
    name = f"{function.__qualname__}:{code.co_firstlineno}"
    if name not in kept[file]:
        made = original(function)
        if isinstance(made, str) or made.__code__.co_freevars:
            return made
        kept[file][name] = made.__code__
        changed.add(file)
    made = FunctionType(kept[file][name], function.__globals__, function.__name__)
    for attribute in COPIED:
        setattr(made, attribute, getattr(function, attribute))
    return made


@atexit.register
def store():
    for file in changed:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_bytes(marshal.dumps(kept[file]))
        part.replace(file)


gc.set_threshold(50_000, 20, 20)  # imports make many objects, and a collection finds none to free
sys.meta_path[:0] = [AtTypeguard(), WithoutTorch()]

"""Makes the tools' imports two to three times as quick: the tests start some two hundred processes.

It keeps the code that typeguard makes of Feast's classes, the tables that MLflow's migrations make, and the
names of functions that skops looks for in every module. It hides PyTorch, Spark, and others from packages
that import them where they are installed and do without where they are not. It reads the thousand modules of
Kubernetes' client when one is asked for, and adds no notes to SciPy's docstrings. And it collects garbage
less often. conftest.py puts this folder into PYTHONPATH.
"""

import atexit
import gc
import importlib.abc
import importlib.util
import marshal
import os
import re
import sqlite3
import sys
import zlib
from pathlib import Path
from types import FunctionType

FOLDER = Path(__file__).resolve().parent.parent.parent / ".pytest_cache" / "quick"
HIDDEN = {
    "torch": {"feast.torch_wrapper", "sklearn.externals.array_api_compat._internal"},
    "dask": {"sklearn.externals.array_api_compat._internal"},
    "IPython": {"bigtree.tree.export.html"},
    "matplotlib": {
        f"bigtree.{name}" for name in ("node.basenode", "tree.tree", "tree.export.images", "utils.plot")
    },
    "rfc3987_syntax": {"jsonschema._format"},  # makes a parser of a grammar, for addresses with accents
    "pyspark": {
        "great_expectations.compatibility.pyspark",
        "mlflow.models.signature",
        "mlflow.models.utils",
        "mlflow.types.schema",
    },
}
LATER = {"altair"}
"""Read when the first name is asked of it. Great Expectations draws with it what nobody looks at here."""
LISTS = {"kubernetes.client", "kubernetes.client.api", "kubernetes.client.models"}
"""Packages whose ``__init__`` does nothing but import a name from each of their modules."""
COPIED = ("__module__", "__qualname__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__")
kept, changed = {}, set()


class Hiding(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        hidden_from = HIDDEN.get(fullname.partition(".")[0])
        if hidden_from:
            caller = sys._getframe(1)
            while caller and caller.f_globals["__name__"].startswith("importlib"):
                caller = caller.f_back
            if caller and caller.f_globals["__name__"] in hidden_from:
                raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


class Changing(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname not in {*CHANGES, *LATER} or self.busy:
            return None
        self.busy = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.busy = False
        if spec and fullname in LATER:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        elif spec:
            execute, change = spec.loader.exec_module, CHANGES[fullname]
            spec.loader.exec_module = lambda module: change(module, execute)
        return spec

    busy = False


def keep_what_typeguard_makes(module, execute):
    execute(module)
    original = module.instrument
    module.instrument = lambda function: instrumented(function, original)


def look_names_up(module, execute):
    source = Path(module.__spec__.origin).read_text(encoding="utf-8")
    where = {name: place for place, name in re.findall(r"(?m)^from (\S+) import (\w+)$", source)}
    if not where:
        execute(module)

    def look_up(name):
        if name not in where:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(where[name]), name)
        setattr(module, name, found)
        return found

    module.__getattr__, module.__dir__ = look_up, lambda: sorted({*vars(module), *where})
    module.__all__ = list(where)


def keep_mlflows_tables(module, execute):
    execute(module)
    migrate = module._initialize_tables

    def initialize(engine):
        from mlflow.version import VERSION

        file = FOLDER / f"mlflow-{VERSION}.db"
        mine = engine.url.get_backend_name() == "sqlite" and engine.url.database
        if not mine or not module._is_empty_database(engine):
            return migrate(engine)
        if file.exists():
            with engine.connect() as connection, sqlite3.connect(f"file:{file}?mode=ro", uri=True) as made:
                made.backup(connection.connection.driver_connection)
            made.close()
            return None
        migrate(engine)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        with engine.connect() as connection, sqlite3.connect(part) as made:
            connection.connection.driver_connection.backup(made)
        made.close()
        part.replace(file)

    module._initialize_tables = initialize


def keep_what_skops_finds(module, execute):
    execute(module)
    look = module.get_public_type_names

    def found(*, module, oftype):
        versions = "-".join(sys.modules[name].__version__ for name in ("numpy", "scipy"))
        file = FOLDER / f"{module.__name__}.{oftype.__name__}-{versions}.names"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text("\n".join(look(module=module, oftype=oftype)), encoding="utf-8")
            part.replace(file)
        return file.read_text(encoding="utf-8").split("\n")

    module.get_public_type_names = found


def leave_docstrings_alone(module, execute):
    execute(module)
    module.xp_capabilities = lambda **_: lambda function: function


CHANGES = {
    "scipy._lib._array_api": leave_docstrings_alone,
    "skops.io._utils": keep_what_skops_finds,
    "typeguard._decorators": keep_what_typeguard_makes,
    "mlflow.store.db.utils": keep_mlflows_tables,
    **dict.fromkeys(LISTS, look_names_up),
}


def instrumented(function, original):
    code = getattr(function, "__code__", None)
    if code is None or not code.co_filename.endswith(".py"):
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
        # A method that calls super() has one variable from outside, its class; another one might hold a type.
        if isinstance(made, str) or not code.co_freevars == made.__code__.co_freevars in ((), ("__class__",)):
            return made
        kept[file][name] = made.__code__
        changed.add(file)
    code = kept[file][name]
    outside = function.__closure__ if code.co_freevars else None
    made = FunctionType(code, function.__globals__, function.__name__, None, outside)
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
sys.meta_path[:0] = [Changing(), Hiding()]

"""What notebooks import: kernels.py has it imported once, in the process that kernels are forks of."""

import builtins
import gc
import importlib
import os
from types import SimpleNamespace

MODULES = (
    "skops.io",  # looks into each module that is there already
    "IPython.core.history",  # before Feast, as in a kernel
    "ipykernel.kernelapp",
    "feast",
    "feast.infra.offline_stores.duckdb",
    "great_expectations.expectations",
    "mlflow.sklearn",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "matplotlib.pyplot",
    "exercises",
    "helpers.checks",
    "helpers.plots",
    "helpers.start",
    "lifecycle.features.retrieval",
    "lifecycle.training.pipeline",
)

os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # a kernel's; Matplotlib reads it once
# Some packages ask once where they are: dill, and pandas, whose tables are narrow in a terminal.
builtins.__IPYTHON__ = True
builtins.get_ipython = lambda: SimpleNamespace(kernel=None)
for module in MODULES:
    importlib.import_module(module)
del builtins.get_ipython
gc.freeze()

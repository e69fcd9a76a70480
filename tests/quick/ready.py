"""What notebooks import: kernels.py has it imported once, in the process that kernels are forks of."""

import gc
import importlib
import os

MODULES = (
    "skops.io",  # looks into each module that is there already
    "IPython.core.history",  # before Feast, as in a kernel
    "ipykernel.kernelapp",
    "feast",
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
for module in MODULES:
    importlib.import_module(module)
gc.freeze()

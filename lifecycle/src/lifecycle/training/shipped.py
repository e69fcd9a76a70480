"""What Kubeflow's Trainer ships to each worker.

A module of its own, because a pod keeps the text in a file of the module's name, beside which Python looks
for packages first: one called ``distributed.py`` would hide the package ``distributed`` from Dask.
"""


def train(parameters: dict | None = None, **named: object) -> None:
    """Train as one worker of several. It is shipped as text, so it imports all it needs in its own body.

    Trainer's local backend calls it with one dictionary, a cluster with named arguments (kubeflow 0.5).

    Args:
        parameters: the arguments of work, in lifecycle/src/lifecycle/training/distributed.py.
        named: the same.
    """
    from lifecycle.training.distributed import work

    work(**(parameters or named))

"""metaprior: learn a prior from many small related data sets, use it on a new one.

The public names load on first use, so that `import metaprior` and the command line's help are
quick.
"""

import importlib
import os
import re

__version__ = "0.1.0"

# Where the host is told to be several devices, each needs threads of its own: one that waits for
# the others' sums in the only thread would wait for ever. Set before JAX starts; a user's own
# setting wins.
_forced = re.search(r"host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
_devices = int(_forced[1] if _forced else os.environ.get("JAX_NUM_CPU_DEVICES") or 1)
if _devices > 1:
    os.environ.setdefault("PJRT_NPROC", str(2 * _devices + 2))

# LAPACK, which JAX calls for factorisations, wakes threads for matrices of 32 rows or more and lets
# them spin: on two busy cores the gradient of sixteen factors of that size took 43 ms of their
# time, and takes 0.3 ms with one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_WHERE = {
    "Data": "task",
    "Task": "task",
    "concat": "task",
    "pad": "task",
    "split": "task",
    "AbstractHead": "posterior",
    "AbstractPosterior": "posterior",
    "Mixture": "posterior",
    "Part": "posterior",
    "Particles": "posterior",
    "Pool": "posterior",
    "Sampled": "posterior",
    "Stacked": "posterior",
    "AbstractLearner": "method",
    "AbstractMethod": "method",
    "Spec": "method",
    "fit": "training",
    "Fitted": "training",
    "evaluate": "evaluation.evaluate",
    "Prior": "tables.prior",
    "load": "tables.prior",
}
_MODULES = {
    "acquire": "acquire",
    "baselines": "tables.baselines",
    "heads": "heads",
    "infer": "infer",
    "methods": "methods",
    "metrics": "evaluation.metrics",
    "nets": "nets",
    "sources": "sources",
    "testing": "testing",
}

__all__ = [*_WHERE, *_MODULES, "__version__"]


def __getattr__(name: str):
    if name in _WHERE:
        value = getattr(importlib.import_module(f"metaprior.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"metaprior.{_MODULES[name]}")
    raise AttributeError(f"module 'metaprior' has no attribute {name!r}")


def __dir__():
    return __all__

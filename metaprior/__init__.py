"""metaprior: learn a prior from many small related data sets, use it on a new one.

The public names load on first use, so that `import metaprior` and the command line's help are quick.
"""

import importlib
import os
import sys
from types import ModuleType

__version__ = "0.1.0"

# On two cores XLA's CPU client (jaxlib 0.10) can wait for itself for ever: two independent batched Cholesky
# factors run at once and each waits for the thread that the other holds. Running operations one after the other
# avoids it; small problems also gain nothing from the intra-operation pool. Set before JAX starts; a user's own
# setting of a flag wins.
for _flag in ("xla_cpu_enable_concurrency_optimized_scheduler", "xla_cpu_multi_thread_eigen"):
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + f" --{_flag}=false").strip()

_WHERE = {
    "Data": "task", "Task": "task", "concat": "task", "pad": "task", "split": "task",
    "AbstractHead": "posterior", "AbstractPosterior": "posterior", "Mixture": "posterior", "Part": "posterior",
    "Particles": "posterior", "Pool": "posterior", "Sampled": "posterior", "Stacked": "posterior",
    "AbstractLearner": "method", "AbstractMethod": "method", "Spec": "method",
    "fit": "fit", "Fitted": "fit", "evaluate": "evaluate", "Prior": "prior", "load": "prior",
}  # fmt: skip
_MODULES = ("acquire", "baselines", "heads", "infer", "methods", "metrics", "nets", "sources", "testing")

__all__ = [*_WHERE, *_MODULES, "__version__"]


def __getattr__(name: str):
    if name in _WHERE:
        value = getattr(importlib.import_module(f"metaprior.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"metaprior.{name}")
    raise AttributeError(f"module 'metaprior' has no attribute {name!r}")


def __dir__():
    return __all__


class _Package(ModuleType):
    """Importing the modules `fit` and `evaluate` must not hide the functions of the same names."""

    def __setattr__(self, name, value):
        if isinstance(value, ModuleType) and _WHERE.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

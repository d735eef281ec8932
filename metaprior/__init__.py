"""metaprior: learn a prior from many small related data sets, use it on a new one.

The public names load on first use, so that `import metaprior` and the command line's help are quick.
"""

import importlib
import os

# XLA's CPU thread pool can wait for itself when batched Cholesky factors run inside vmapped loops
# (jaxlib 0.10: all threads asleep, for ever). Small problems gain nothing from that pool. Set before
# JAX starts; a user's own setting of the flag wins.
if "xla_cpu_multi_thread_eigen" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false").strip()

__version__ = "0.1.0"

# scikit-learn's threads otherwise spin while they wait, which is ruinous on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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

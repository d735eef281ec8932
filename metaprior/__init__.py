"""metaprior: learn a prior from many small related data sets, use it on a new one.

The public names load on first use. So `import metaprior` and the command line's help are quick, and
JAX is imported only by those who compute.
"""

from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

# What editors and type checkers read. Nothing of it runs.
if TYPE_CHECKING:
    from metaprior import acquire, heads, infer, methods, nets, sources, testing
    from metaprior.evaluation import metrics
    from metaprior.evaluation.evaluate import evaluate
    from metaprior.heads.base import AbstractHead
    from metaprior.method import AbstractLearner, AbstractMethod, Spec
    from metaprior.mixture import Mixture, Part
    from metaprior.posterior import AbstractPosterior, Particles, Pool, Sampled, Stacked
    from metaprior.tables import baselines
    from metaprior.tables.prior import Prior, load
    from metaprior.task import Data, Task, concat, pad, split
    from metaprior.training import Fitted, fit

__all__ = [
    "AbstractHead",
    "AbstractLearner",
    "AbstractMethod",
    "AbstractPosterior",
    "Data",
    "Fitted",
    "Mixture",
    "Part",
    "Particles",
    "Pool",
    "Prior",
    "Sampled",
    "Spec",
    "Stacked",
    "Task",
    "__version__",
    "acquire",
    "baselines",
    "concat",
    "evaluate",
    "fit",
    "heads",
    "infer",
    "load",
    "methods",
    "metrics",
    "nets",
    "pad",
    "sources",
    "split",
    "testing",
]

# Where each public name is at run time: the same as above, which a test checks.
_NAMES = {
    "evaluation.evaluate": ("evaluate",),
    "heads.base": ("AbstractHead",),
    "method": ("AbstractLearner", "AbstractMethod", "Spec"),
    "mixture": ("Mixture", "Part"),
    "posterior": ("AbstractPosterior", "Particles", "Pool", "Sampled", "Stacked"),
    "tables.prior": ("Prior", "load"),
    "task": ("Data", "Task", "concat", "pad", "split"),
    "training": ("Fitted", "fit"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
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

# Hidden from type checkers: they would take every misspelt name for something that loads here.
if not TYPE_CHECKING:

    def __getattr__(name: str):
        """A public name, imported when it is first asked for."""
        from importlib import import_module

        if name in _MODULES:
            value = import_module(f"metaprior.{_MODULES[name]}")
        elif name in _HOME:
            value = getattr(import_module(f"metaprior.{_HOME[name]}"), name)
        else:
            raise AttributeError(f"module 'metaprior' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__

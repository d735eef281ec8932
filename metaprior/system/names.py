"""The names by which files know classes and functions.

What a file names is looked up, never imported, and never called: classes of modules that are ours
or imported already, and a list of pure functions.
"""

import importlib
import inspect
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

# Where the classes of priors and states are. These modules are imported when a file names a class
# that is not there yet.
HOMES = (
    "metaprior.tables.prior",
    "metaprior.methods",
    "metaprior.methods.embedded",
    "metaprior.heads",
    "metaprior.infer",
    "metaprior.nets",
    "metaprior.nets.conv",
    "metaprior.sources",
    "optax",
)

# Where the classes are that files of 0.1.0 name: a whole module, or one class of it.
MOVED = {
    "metaprior.adapted": "metaprior.tables.posterior",
    "metaprior.baselines.boosting": "metaprior.tables.baselines.boosting",
    "metaprior.baselines.learners": "metaprior.tables.baselines.learners",
    "metaprior.chain": "metaprior.tables.trained",
    "metaprior.evaluate": "metaprior.evaluation.evaluate",
    "metaprior.evaluate:Units": "metaprior.evaluation.units:Units",
    "metaprior.fit": "metaprior.training",
    "metaprior.prior": "metaprior.tables.trained",
    "metaprior.table": "metaprior.tables.columns",
}


def _functions() -> dict[str, Any]:
    """What modules may hold as activations: pure functions of arrays, by their public names."""
    found = {}
    for name, function in vars(jax.nn).items():
        if callable(function) and not name.startswith("_"):
            found[f"jax.nn:{name}"] = function
    for name, function in vars(jnp).items():
        if isinstance(getattr(np, name, None), np.ufunc):
            found[f"jax.numpy:{name}"] = function
    # The default of what an MLP does after its last layer. This function has no public name.
    straight = inspect.signature(eqx.nn.MLP.__init__).parameters["final_activation"].default
    return found | {"equinox.nn:MLP.final_activation": straight}


FUNCTIONS = _functions()
_NAMES = {id(function): name for name, function in FUNCTIONS.items()}


class Refused(Exception):
    """A file holds what no file of ours would."""


def name_of(cls: type) -> str:
    """The name under which a file notes a class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def name_of_function(function: Any) -> str | None:
    """The name under which a file notes a function; `None` for functions it cannot hold."""
    return _NAMES.get(id(function))


def find_class(name: Any, base: type) -> Any:
    """Look up a concrete class by its name.

    Args:
        name: what a file says; it can be anything.
        base: what it must be a subclass of: `eqx.Module`, or `tuple` for named tuples.

    Raises:
        Refused: there is no such class.
    """
    if type(name) is not str or name.count(":") != 1:
        raise Refused("an unreadable name")
    module, path = MOVED.get(name, name).split(":")
    module = MOVED.get(module, module)

    if module not in sys.modules and module.startswith(("metaprior.", "optax.")):
        for home in HOMES:
            importlib.import_module(home)
    if module not in sys.modules:
        raise Refused(f"a class of {module!r}, which is not imported; import it first")

    found: Any = sys.modules[module]
    for part in path.split("."):
        # Not `getattr`, which runs what a lazy module or a descriptor does when it is looked at.
        found = inspect.getattr_static(found, part, None)
        if not issubclass(type(found), type):
            raise Refused(f"the unknown name {name!r}")

    # Equinox's and Python's marks of classes that have no instances.
    abstract = any(
        getattr(found, f"__abstract{what}__", ()) for what in ("methods", "vars", "classvars")
    )
    named = base is not tuple or type(inspect.getattr_static(found, "_fields", None)) is tuple
    if base not in found.__mro__ or abstract or not named:
        raise Refused(f"{name!r}, which is no {'module' if base is eqx.Module else 'named tuple'}")
    return found


def is_findable(cls: type, base: type) -> bool:
    """Whether a class is found again by its name."""
    try:
        return find_class(name_of(cls), base) is cls
    except Refused:
        return False

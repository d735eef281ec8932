"""One cell (a method, a seed) of any protocol: its options, its progress, its training."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from metaprior.protocols.protocol import Tell


def option(options: Mapping[str, Any], name: str, method: str) -> Any:
    """An option that may differ by method: the method's own value, else the one named `""`."""
    values = options[name]
    return values.get(method, values[""])


def part_of(tell: Tell, first: float, last: float, label: str = "") -> Tell:
    """A `tell` for one part of the work, which takes it from `first` to `last`.

    Args:
        tell: of the whole work.
        first, last: shares of the whole work, 0 … 1.
        label: put in front of what is being done, as in `"label: training"`.
    """

    def told(done: float, what: str) -> None:
        tell(first + (last - first) * done, f"{label}: {what}" if label else what)

    return told


def item_of(tell: Tell, index: int, count: int, label: str = "") -> Tell:
    """A `tell` for item `index` of `count` that each take as long."""
    return part_of(tell, index / count, (index + 1) / count, label)


def loss_of(tell: Tell, digits: int = 3) -> Callable[[int, int, float], None]:
    """What `fit` takes as `progress`: it tells the share of the steps done, and the loss."""

    def progress(done: int, of: int, loss: float) -> None:
        tell(done / of, f"training, loss {loss:.{digits}f}")

    return progress


def to_numpy(found: Mapping[str, Any], dtype: Any = None) -> dict[str, np.ndarray]:
    """Arrays by name, brought to numpy."""
    return {name: np.asarray(value, dtype) for name, value in found.items()}


def parameters(learner: Any) -> int:
    """How many numbers a learner holds."""
    import equinox as eqx
    import jax

    arrays = jax.tree.leaves(eqx.filter(learner, eqx.is_inexact_array))
    return int(sum(array.size for array in arrays))


def training_facts(fitted: Any) -> dict[str, Any]:
    """What a report says of a `fit`: steps, seconds, how it ended."""
    return {
        "steps": fitted.steps,
        "train_seconds": round(fitted.seconds, 1),
        "training": fitted.outcome,
        "skipped": fitted.skipped,
    }


def trained(
    name: str, spec: Any, source: Any, seed: int, steps: int, tell: Tell, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A row of THE TABLE with its default settings, trained by `fit`; and facts for `Outcome`.

    Args:
        name: of the row. A row that `fit` does not train comes back as it starts.
        spec, source: as in `fit`.
        seed: of the initial weights and of the tasks.
        steps: of training.
        tell: told 0 … 1 over training.
        options: of `fit`; `hyper` is a dictionary of options of the method's `init`.
    """
    import equinox as eqx
    import jax

    from metaprior.methods import METHODS
    from metaprior.training import fit

    row = METHODS[name]
    init_key, fit_key = jax.random.split(jax.random.key(seed), 2)
    hyper = scales_of(name, source) | options.pop("hyper", {})

    def start(key: Any) -> Any:
        return row.init(spec, key=key, **hyper)

    learner = eqx.filter_jit(start)(init_key)
    facts: dict[str, Any] = {"parameters": parameters(learner)}
    if not row.trainable:
        return learner, facts | {"steps": 0}

    options.setdefault("every", max(1, min(100, steps // 20)))
    fitted = fit(learner, source, key=fit_key, steps=steps, progress=loss_of(tell), **options)
    return fitted.method, facts | training_facts(fitted)


def scales_of(name: str, source: Any) -> dict[str, Any]:
    """What a row that learns nothing from tasks must be told of them: how large x and y are.

    Args:
        name: of the row; any but `bnn` needs no options.
        source: of the tasks, of which 64 are drawn.
    """
    import jax

    if name != "bnn":
        return {}
    tasks = jax.jit(jax.vmap(source))(jax.random.split(jax.random.key(64), 64))
    parts = [jax.device_get(part) for part in (tasks.support, tasks.query)]
    x, y = (np.concatenate([getattr(p, name)[p.mask] for p in parts]) for name in ("x", "y"))
    return {"x_scale": np.maximum(x.std(0), 1e-6), "y_scale": max(float(y.std()), 1e-6)}


def cut_short(facts: Mapping[str, Any]) -> str:
    """The note of a cell whose training ended early or left steps out; `""` of any other."""
    skipped = facts.get("skipped", 0)
    if facts.get("training", "done") != "non-finite loss":
        return f"{skipped} training steps had no finite loss and were skipped" if skipped else ""
    return (
        f"training ended at step {facts['steps']} with a non-finite loss; "
        "the last good method is judged"
    )


def minutes(seconds: float) -> str:
    """90 s, 12 min, 3.2 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

"""The sources of `oracles`, whose exact posterior is known, and the tasks that are judged."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from metaprior.heads import Categorical, Gaussian
from metaprior.heads.base import AbstractHead
from metaprior.sources import GP, Circles, Harmonic, Linear, SineLine, Sinusoid

DRAWN = "drawn"  # as many support rows as in training
HELD_OUT = 20261124  # key of the tasks that are judged: defaults were chosen on other tasks


class Case(NamedTuple):
    """A source to train and be judged on.

    Args:
        what: the source in words.
        source: of the tasks.
        steps: of training.
        shots: numbers of support rows at which methods are judged.
        x_dim: columns of x.
        head: of the outcomes.
    """

    what: str
    source: Any
    steps: int
    shots: tuple[int | str, ...] = (0, 1, 2, 5, 10, DRAWN)
    x_dim: int = 1
    head: AbstractHead = Gaussian(1)

    @property
    def exact(self) -> bool:
        """Whether the exact posterior is known."""
        return hasattr(self.source, "exact")


def cases() -> dict[str, Case]:
    """The sources, by name."""
    # VERSA's toy problem as a linear function: its input column says nothing
    mean = Linear(jnp.zeros(2), jnp.asarray([[1.0], [0.0]]), 1.0, query=15, fewest=0)
    return {
        "linear": Case(
            "Linear functions of two inputs, noise 0.3",
            Linear.of(2, fewest=0),
            2_000,
            x_dim=2,
        ),
        "gp": Case(
            "Gaussian process, EQ kernel, noise variance 0.05, 0 to 30 rows (Bruinsma et al. 2023)",
            GP("eq", noise=0.05**0.5, support=30),
            3_000,
        ),
        "sineline": Case(
            "A sine wave or a line, noise 0.3 (Finn, Xu & Levine 2018)",
            SineLine(fewest=0),
            5_000,
        ),
        "mean": Case(
            "A normal mean seen with normal noise, both of variance 1, and an input that says "
            "nothing (VERSA's toy)",
            mean,
            1_000,
        ),
        "sinusoid": Case(
            "Sine waves, noise variance 0.02, 0 to 10 rows (Harrison, Sharma & Pavone 2018)",
            Sinusoid(noise=0.02**0.5, fewest=0),
            3_000,
        ),
        "harmonic": Case(
            "Sine waves of any frequency, clean query rows; 1 to 20 rows in training (Yoon et al. "
            "2018)",
            Harmonic(support=20, query=20, fewest=1),
            5_000,
            (5, 10, 20),
        ),
        "circles": Case(
            "Inside a circle or not, from points inside alone, 1 label in 100 wrong (Finn, Xu & "
            "Levine 2018)",
            Circles(support=10, fewest=0),
            3_000,
            x_dim=2,
            head=Categorical(2),
        ),
    }


def held_out(case: Case, tasks: int):
    """`(tasks x shots, …)` tasks and their keys: each task with every number of support rows."""
    drawn = jax.jit(jax.vmap(case.source))(jax.random.split(jax.random.key(HELD_OUT), tasks))
    slots = jnp.arange(drawn.support.mask.shape[1])

    def showing(shots):
        if shots == DRAWN:
            return drawn
        mask = jnp.broadcast_to(slots < shots, drawn.support.mask.shape)
        return eqx.tree_at(lambda t: t.support.mask, drawn, mask)

    def together(*arrays):
        return jnp.stack(arrays, 1).reshape(-1, *arrays[0].shape[1:])

    each = [showing(shots) for shots in case.shots]
    keys = jax.random.split(jax.random.key(3), tasks * len(each))
    return jax.tree.map(together, *each), keys

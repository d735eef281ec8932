"""The tasks of `shift`: one process that is trained on, and what is turned away from it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from metaprior.infer.cholesky import factorise
from metaprior.infer.gp import lifted
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture, Part
from metaprior.nets.kernels import Periodic, Stationary, gram
from metaprior.posterior import AbstractPosterior
from metaprior.sources import GP
from metaprior.sources.exact import Known
from metaprior.task import Data, Task, split

SHOWN, MOST, ASKED = 10, 50, 20  # rows shown, the most that are shown in any setting, rows asked
NOISE, LENGTH = 0.1, 0.5
FAR = (2.0, 6.0)  # where no task of training has rows
SD = (1 + NOISE**2) ** 0.5  # of an outcome
JUMP = 5.0  # standard deviations that a row is moved by
UNSHIFTED = "unshifted"


def trained_on(support: int = SHOWN) -> GP:
    """The process of training, 0 to `support` rows."""
    kernel = Stationary(jnp.zeros(()), jnp.log(jnp.asarray([LENGTH])), "eq")
    return GP(kernel, noise=NOISE, support=support, query=ASKED)


class OneMoved(AbstractPosterior):
    """The posterior that knows that one of the rows was moved, but not which and whereto.

    Bayes' rule over the row and the sign, all equally likely: the process conditioned on the row
    put back, weighed by the density of all rows that are then seen.

    Args:
        process: of the tasks.
        support: what was observed; its first `SHOWN` rows may have been moved.
        by: how far a row is moved, units of y.
    """

    process: GP
    support: Data
    by: float

    def predict(self, x, *, key, samples):
        rows, signs = jnp.meshgrid(jnp.arange(SHOWN), jnp.asarray([-1.0, 1.0]), indexing="ij")

        def back(row, sign):
            y = self.support.y.at[row].add(-sign * self.by)
            data = Data(self.support.x, y, self.support.mask)
            before = self.process.exact(data.first(0))
            evidence = before.joint_log_prob(data, key=key, samples=1)
            (part,) = self.process.exact(data).predict(x, key=key, samples=1).parts
            there = self.support.mask[row]
            return part.params[0], part.removable()[0], jnp.where(there, evidence, -jnp.inf)

        params, inside, log_weight = jax.vmap(back)(rows.ravel(), signs.ravel())
        (part,) = self.process.exact(self.support).predict(x, key=key, samples=1).parts
        return Mixture((Part(part.head, params, log_weight, inside),))

    def sample(self, x, *, key, samples):
        raise NotImplementedError  # only single rows are judged

    def joint_log_prob(self, data, *, key, samples):
        raise NotImplementedError


class KnowsMoved(AbstractLearner):
    """Who knows the process, and that one row was moved by so much."""

    process: GP
    by: float

    def posterior(self, support, *, key):
        # Such tasks show no more rows: what follows is padding, which is left out for speed.
        rows = jax.tree.map(lambda a: a[:SHOWN], support)
        return OneMoved(self.process, rows, self.by)


class Setting(NamedTuple):
    """One kind of task.

    Args:
        process: its functions, noise, and range of the rows shown.
        asked: range of x of the rows asked for.
        shown: rows shown.
        moved: how far one of them is moved, units of y.
    """

    process: GP
    asked: tuple[float, float] = (-2.0, 2.0)
    shown: int = SHOWN
    moved: float = 0.0

    @property
    def exact(self) -> AbstractLearner:
        """Who knows all of this."""
        return KnowsMoved(self.process, self.moved) if self.moved else Known(self.process)

    def tasks(self, keys) -> Task:
        """A task a key, stacked; every support has `MOST` places.

        The same key gives the same draws in every setting, so that figures are compared task by
        task.
        """
        setting = as_arrays(self)
        x = _places(setting, keys)
        return _drawn(setting.shown, setting.moved, x, _covariances(setting.process, x), keys)


def settings() -> dict[str, Setting]:
    """By name, the setting of training first."""
    own = trained_on(MOST)

    def with_kernel(kernel) -> GP:
        return GP(kernel, noise=NOISE, support=MOST, query=ASKED)

    zero, length = jnp.zeros(()), jnp.log(jnp.asarray([LENGTH]))
    matern = Stationary(zero, length, "matern52")
    # A period of 1 that never changes: far rows say as much as near ones.
    periodic = Periodic(zero, zero, jnp.log(jnp.asarray(1.0)), jnp.log(jnp.asarray(1e3)))
    there = GP(own.kernel, noise=NOISE, low=FAR[0], high=FAR[1], support=MOST, query=ASKED)
    noisy = GP(own.kernel, noise=2 * NOISE, support=MOST, query=ASKED)
    return {
        UNSHIFTED: Setting(own),
        "other x": Setting(there, FAR),
        "beyond rows": Setting(own, FAR),
        "Matérn-5/2": Setting(with_kernel(matern)),
        "periodic": Setting(with_kernel(periodic)),
        "row off": Setting(own, moved=JUMP * NOISE),
        "row far off": Setting(own, moved=JUMP * SD),
        f"{MOST} rows": Setting(own, shown=MOST),
        "noise x 2": Setting(noisy),
    }


@eqx.filter_jit
def _places(setting: Setting, keys):
    """x of the rows shown, then of those asked for, `(t, n, 1)`."""
    low, high = setting.asked

    def one(key):
        shown, asked = jr.split(jr.fold_in(key, 0))
        lowest, highest = setting.process.low, setting.process.high
        first = jr.uniform(shown, (MOST, 1), minval=lowest, maxval=highest)
        return jnp.concatenate([first, jr.uniform(asked, (ASKED, 1), minval=low, maxval=high)])

    return jax.vmap(one)(keys)


@eqx.filter_jit
def _covariances(process: GP, x):
    """Of outcomes, `(t, n, n)`; apart from `_drawn`, which then is one program for all kernels."""
    return jax.vmap(lambda x: gram(process.kernel, x, x))(x) + process.noise**2 * jnp.eye(
        x.shape[1]
    )


@eqx.filter_jit
def _drawn(shown, moved, x, covariances, keys) -> Task:
    def one(x, covariance, key):
        f_key, m_key = jr.split(jr.fold_in(key, 1))
        y = factorise(lifted(covariance)).lower @ jr.normal(f_key, (len(x),))
        task = split(Data.of(x, y + move(shown, moved, len(x), m_key)), MOST)
        return eqx.tree_at(lambda t: t.support, task, task.support.first(shown))

    return jax.vmap(one)(x, covariances, keys)


def move(shown, by, rows: int, key):
    """What is added to the outcomes of `rows` rows: `by`, up or down, to one of those shown."""
    row_key, sign_key = jr.split(key)
    row = jr.randint(row_key, (), 0, jnp.maximum(shown, 1))
    return jnp.zeros(rows).at[row].set(by * jr.rademacher(sign_key, ()))


class SomeMoved(eqx.Module):
    """Tasks of a process, a share of which has one row moved, by either distance.

    Args:
        process: of the tasks.
        share: of the tasks.
    """

    process: GP
    share: float

    def __call__(self, key) -> Task:
        t_key, some_key, by_key, m_key = jr.split(key, 4)
        task = self.process(t_key)
        by = jnp.where(jr.bernoulli(by_key), JUMP * NOISE, JUMP * SD)
        by = jnp.where(jr.bernoulli(some_key, self.share), by, 0.0)
        data = task.support
        y = data.y[:, 0] + move(data.count, by, len(data.y), m_key)
        return eqx.tree_at(lambda t: t.support.y, task, y[:, None])


def tasks_of_training(seen: float) -> GP | SomeMoved:
    """Tasks of the process; a share `seen` of them has a row that was moved."""
    return SomeMoved(trained_on(), seen) if seen else trained_on()


def as_arrays(tree):
    """With numbers as arrays: what differs by numbers alone then shares a compiled program."""
    return jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, float | int) else a, tree)

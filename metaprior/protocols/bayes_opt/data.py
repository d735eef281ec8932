"""Families of functions whose lowest value is sought: training tables, and functions to hunt in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metaprior.infer.cholesky import factorise
from metaprior.infer.gp import lifted
from metaprior.nets.kernels import Stationary
from metaprior.sources import Table
from metaprior.task import shuffled

FORRESTER, GP_1D, BRANIN = "Forrester", "GP-1D", "Branin"
NEAR = 0.01  # of the range of a function, or of the rows of a pool: so near is solved
TRAIN_KEY, TEST_KEY = 20261202, 20261203


class Hunts(eqx.Module):
    """Functions whose lowest value is sought among candidates, stacked.

    Args:
        x: candidates, `(t, n, d)`, in units of the training rows.
        f: their values without noise, `(t, n)`, in units of the training rows.
        real: which candidates are no padding, `(t, n)`.
        order: candidates at random, each once, `(t, m)`: what random search tries.
        own: settings of the function's own prior, `(t, k)`, where the family has some.
        noise: standard deviation of an observation's noise, in units of the training rows.
    """

    x: Float[Array, "*t n d"]
    f: Float[Array, "*t n"]
    real: Bool[Array, "*t n"]
    order: Int[Array, "*t m"]
    own: Float[Array, "*t k"]
    noise: Float[Array, "*t"]


class Family(NamedTuple):
    """What is trained on, and what is hunted in.

    Args:
        source: of training tasks.
        hunts: the functions that are judged.
        scale: of y, the family's units in one unit of the training rows.
        lowest: value of each function, `(t,)`, units of the training rows.
        goal: a value of at most this is solved, `(t,)`.
        unit: functions of one unit (a data set) are averaged before errors are taken, `(t,)`.
        start: random evaluations that everyone begins with.
        shown: numbers of evaluations after these that figures are given for.
        centre: of y: zero in units of the training rows.
    """

    source: Any
    hunts: Hunts
    scale: float
    lowest: np.ndarray
    goal: np.ndarray
    unit: np.ndarray
    start: int
    shown: tuple[int, ...]
    centre: float = 0.0


def forrester(w: Float[Array, "3"], x: Float[Array, "n 1"]) -> Float[Array, "n"]:
    """a (6x - 2)² sin(12x - 4) + b (x - 0.5) - c, for w = (a, b, c)."""
    return forrester_features(x) @ w


def forrester_features(x: Float[Array, "n 1"]) -> Float[Array, "n 3"]:
    """What a, b and c are multiplied with."""
    v = x[:, 0]
    wave = (6 * v - 2) ** 2 * jnp.sin(12 * v - 4)
    return jnp.stack([wave, v - 0.5, -jnp.ones_like(v)], -1)


# a, b and c are uniform between these.
FORRESTER_LOW, FORRESTER_HIGH = np.array([0.2, -5.0, -5.0]), np.array([3.0, 15.0, 5.0])
# Parameters a, b, c, r, s, t of Branin functions, and the box of x (Rothfuss et al. 2021).
BRANIN_LOW = np.array([0.5, 0.1, 1.0, 5.0, 8.0, 0.03])
BRANIN_HIGH = np.array([1.5, 0.15, 2.0, 7.0, 12.0, 0.05])
BOX = np.array([[-5.0, 0.0], [10.0, 15.0]])
LENGTHS, SCALES = (0.1, 0.6), (0.1, 1.0)  # of the functions of GP-1D


def branin(w: Float[Array, "6"], x: Float[Array, "n 2"]) -> Float[Array, "n"]:
    """a (x₂ - b x₁² + c x₁ - r)² + s (1 - t) cos x₁ + s."""
    a, b, c, r, s, t = w
    return a * (x[:, 1] - b * x[:, 0] ** 2 + c * x[:, 0] - r) ** 2 + s * (
        (1 - t) * jnp.cos(x[:, 0]) + 1
    )


def grid(low: Any, high: Any, count: int) -> np.ndarray:
    """`count` places along each of the sides of a box, `(count^d, d)`."""
    sides = [np.linspace(a, b, count) for a, b in zip(np.atleast_1d(low), np.atleast_1d(high))]
    return np.stack([side.ravel() for side in np.meshgrid(*sides, indexing="ij")], -1)


def branin_lowest(w: np.ndarray) -> np.ndarray:
    """The lowest value of each Branin function in the box, `(t,)`.

    Newton's method from the best three places of a grid of 101 x 101; inside the box, or at the
    best place of the grid where it leaves the box. The minimum of the standard function, 0.398, is
    that of no other.
    """
    with jax.enable_x64(True):
        places = jnp.asarray(grid(BOX[0], BOX[1], 101))
        low, high = jnp.asarray(BOX)

        def at(w, x):
            return branin(w, x[None])[0]

        def polish(w, x):
            def newton(_, x):
                slope = jax.grad(at, 1)(w, x)
                bend = jax.hessian(at, 1)(w, x) + 1e-9 * jnp.eye(2)
                new = jnp.clip(x - jnp.linalg.solve(bend, slope), low, high)
                return jnp.where(at(w, new) < at(w, x), new, x)

            return at(w, jax.lax.fori_loop(0, 30, newton, x))

        def one(w):
            values = branin(w, places)
            _, best = jax.lax.top_k(-values, 30)
            return jax.vmap(lambda x: polish(w, x))(places[best]).min()

        return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(w, float)))


def uniform(key, low: np.ndarray, high: np.ndarray, count: int) -> Float[Array, "t k"]:
    """Settings of `count` functions."""
    return jr.uniform(key, (count, len(low)), minval=jnp.asarray(low), maxval=jnp.asarray(high))


def table_of(x: np.ndarray, y: np.ndarray, support: int) -> Table:
    """Functions `(t, m, d)` with values `(t, m)` as training tasks; all rows, some of them shown.

    Everything is in the units that it is given in.
    """
    t, m = y.shape
    flat = (a.reshape(t * m, -1).astype(np.float32) for a in (x, y))
    start, count = np.arange(t, dtype=np.int32) * m, np.full(t, m, np.int32)
    groups = np.arange(t, dtype=np.int32)
    return Table(*map(jnp.asarray, (*flat, start, count, groups)), support, m - support)


def orders(key, real: np.ndarray, count: int) -> np.ndarray:
    """`count` candidates of each function at random, real ones first, each once: `(t, count)`."""
    return np.asarray(shuffled(key, jnp.asarray(real)))[:, :count]


def assembled(
    train: tuple[np.ndarray, np.ndarray],
    places: np.ndarray,
    values: np.ndarray,
    noise: float,
    own: np.ndarray | None = None,
    lowest: np.ndarray | None = None,
    *,
    support: int,
    start: int,
    shown: tuple[int, ...],
    key: Any,
) -> Family:
    """A family in units of its training rows.

    Args:
        train: rows of the training functions, `(t, m, d)` and `(t, m)`.
        places: candidates, the same for all functions, `(n, d)`.
        values: of the functions that are judged, without noise, `(t, n)`.
        noise: standard deviation, units of y.
        own: see `Hunts`; lengths and scales in the family's units.
        lowest: value of each function; of the candidates by default.
        support: rows that a training task shows at most.
        start, shown: see `Family`.
        key: of random search.
    """
    x, y = (np.asarray(a, np.float64) for a in train)
    middle, spread = x.mean((0, 1)), x.std((0, 1))
    centre, scale = float(y.mean()), float(y.std())
    t, n = values.shape
    z = (np.asarray(values, np.float64) - centre) / scale
    real = np.ones((t, n), bool)
    settings = np.zeros((t, 0)) if own is None else own / np.array([spread[0], scale])
    scaled = np.broadcast_to((places - middle) / spread, (t, *places.shape))
    low = z.min(1) if lowest is None else (lowest - centre) / scale
    arrays = (scaled, z, real, orders(key, real, min(n, start + max(shown))), settings)
    floats = [jnp.asarray(a, None if a.dtype != float else jnp.float32) for a in arrays]
    hunts = Hunts(*floats, jnp.full(t, noise / scale, jnp.float32))
    table = table_of((x - middle) / spread, (y - centre) / scale, support)
    goal = low + NEAR * (z.max(1) - low)
    return Family(table, hunts, scale, low, goal, np.arange(t), start, shown, centre)


def noisy(f: Callable, w: Array, x: Array, noise: float, key) -> np.ndarray:
    """Values of the functions at their own x `(t, m, d)`, with noise."""
    values = jax.vmap(f)(w, x)
    return np.asarray(values + noise * jr.normal(key, values.shape))


def make_forrester(training: int, judged: int, seed: int) -> Family:
    """Training functions of 20 rows; candidates on 401 places of [0, 1]; noise 0.1."""
    keys = jr.split(jr.fold_in(jr.key(TRAIN_KEY), seed), 3)
    w = uniform(keys[0], FORRESTER_LOW, FORRESTER_HIGH, training)
    x = jr.uniform(keys[1], (training, 20, 1))
    y = noisy(forrester, w, x, 0.1, keys[2])
    w_key, o_key = jr.split(jr.key(TEST_KEY))
    places = grid(0.0, 1.0, 401)
    test = uniform(w_key, FORRESTER_LOW, FORRESTER_HIGH, judged)
    values = np.asarray(jax.vmap(lambda w: forrester(w, jnp.asarray(places)))(test))
    shown = (1, 2, 3, 5, 7, 10, 20)
    return assembled(
        (np.asarray(x), y), places, values, 0.1, support=12, start=0, shown=shown, key=o_key
    )


@jax.jit
def _gp_values(settings, x, noise) -> Array:
    """Functions of a Gaussian process of their own length and scale, at their x `(t, m, 1)`."""

    def one(item):
        (length, scale), x, e = item
        kernel = Stationary(jnp.log(scale), jnp.log(length)[None], "eq")
        return factorise(lifted(kernel(x, x))).lower @ e

    return jax.lax.map(one, (settings, x, noise))


def make_gp_1d(training: int, judged: int, seed: int) -> Family:
    """Functions of 48 rows without noise; candidates on 400 places of [-2, 2]."""
    ends = np.array([LENGTHS, SCALES]).T
    keys = jr.split(jr.fold_in(jr.key(TRAIN_KEY + 1), seed), 3)
    x = jr.uniform(keys[0], (training, 48, 1), minval=-2.0, maxval=2.0)
    y = _gp_values(uniform(keys[1], *ends, training), x, jr.normal(keys[2], x.shape[:2]))
    w_key, e_key, o_key = jr.split(jr.key(TEST_KEY + 1), 3)
    places, own = grid(-2.0, 2.0, 400), uniform(w_key, *ends, judged)
    at = jnp.broadcast_to(jnp.asarray(places, jnp.float32), (judged, 400, 1))
    values = np.asarray(_gp_values(own, at, jr.normal(e_key, (judged, 400))))
    shown = (1, 2, 3, 5, 10, 15, 20, 30)
    return assembled(
        (np.asarray(x), np.asarray(y)),
        places,
        values,
        0.0,
        np.asarray(own),
        support=32,
        start=1,
        shown=shown,
        key=o_key,
    )


def make_branin(training: int, judged: int, seed: int) -> Family:
    """Training functions of 50 rows; candidates on 33 x 33 places of the box; noise 2."""
    keys = jr.split(jr.fold_in(jr.key(TRAIN_KEY + 2), seed), 3)
    w = uniform(keys[0], BRANIN_LOW, BRANIN_HIGH, training)
    x = jr.uniform(keys[1], (training, 50, 2), minval=BOX[0], maxval=BOX[1])
    y = noisy(branin, w, x, 2.0, keys[2])
    w_key, o_key = jr.split(jr.key(TEST_KEY + 2))
    places, test = grid(BOX[0], BOX[1], 33), uniform(w_key, BRANIN_LOW, BRANIN_HIGH, judged)
    values = np.asarray(jax.vmap(lambda w: branin(w, jnp.asarray(places)))(test))
    lowest, shown = branin_lowest(np.asarray(test)), (1, 2, 3, 5, 10, 20, 30)
    return assembled(
        (np.asarray(x), y),
        places,
        values,
        2.0,
        lowest=lowest,
        support=30,
        start=0,
        shown=shown,
        key=o_key,
    )


FAMILIES = {FORRESTER: make_forrester, GP_1D: make_gp_1d, BRANIN: make_branin}

"""The inner loop of gradient-based meta-learning."""

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# The longest axis that `Curvature` learns a matrix for.
LONGEST = 256
# A loop of so many steps on so many numbers is written out: see `written_out`.
FEW, SMALL = 5, 20_000


def shorten(gradient: Any, length: float) -> Any:
    """`gradient` no longer than `length`, its direction kept; differentiable at zero."""
    square = sum((leaf * leaf).sum() for leaf in jax.tree.leaves(gradient))
    # The root of zero has no gradient; `where` alone would multiply that by zero, which is NaN.
    shrunk = length / jnp.sqrt(jnp.maximum(square, length**2))
    scale = jnp.where(square > length**2, shrunk, 1.0)
    return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), gradient)


class AbstractStep(eqx.Module):
    """How far a descent goes along a gradient: `Rate`, `Rates` or `Curvature`.

    Arrays in it are learned with the rest of a method, Python numbers stay as they are.
    """

    @abstractmethod
    def __call__(self, gradient: Any, step: Int[Array, ""]) -> Any:
        """What to subtract from the weights at this step."""

    @abstractmethod
    def check(self, w: Any, steps: int) -> None:
        """Raises `ValueError` where it cannot make so many steps from the weights `w`."""

    @abstractmethod
    def reach(self, steps: int) -> Array:
        """How far so many steps go along a gradient of one, in the mean over the weights."""


class Rate(AbstractStep):
    """One rate for all weights and steps.

    Args:
        value: a Python float is fixed, an array is learned.
    """

    value: Array | float

    def __call__(self, gradient, step):
        return jax.tree.map(lambda g: self.value * g, gradient)

    def check(self, w, steps):
        pass

    def reach(self, steps):
        return jnp.asarray(steps * self.value)


class Rates(AbstractStep):
    """A learned rate for every weight, the same at all steps.

    Li et al., "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017, equation 1.

    Args:
        values: a pytree like the weights.
    """

    values: Any

    @staticmethod
    def init(w: Any, start: float) -> "Rates":
        """Rates that all are `start`, for the floating-point arrays of `w`."""
        moving = eqx.filter(w, eqx.is_inexact_array)
        return Rates(jax.tree.map(lambda a: jnp.full_like(a, start), moving))

    def __call__(self, gradient, step):
        rates = eqx.filter(self.values, eqx.is_inexact_array)
        return jax.tree.map(jnp.multiply, rates, gradient)

    def check(self, w, steps):
        rates = eqx.filter(self.values, eqx.is_inexact_array)
        wanted, came = jax.tree.structure(w), jax.tree.structure(rates)
        if wanted != came:
            raise ValueError(
                f"Rates are arrays in the structure of the weights, {wanted}; got {came}."
            )

    def reach(self, steps):
        return steps * _mean(eqx.filter(self.values, eqx.is_inexact_array))


class Curvature(AbstractStep):
    """A learned step: a gradient turned by matrices, times a rate for each weight and step.

    There is a matrix along each axis of each array. Park & Oliva, "Meta-Curvature", NeurIPS 2019,
    section 3: the products of the matrices precondition descent without a matrix of the size of the
    network. They start as identities, which leaves a rate for every weight (`Rates`), here for
    every step as well. On sine waves and lines with 10 rows, 4,000 training steps and one seed, the
    matrices took a network with such rates from 0.77 to 0.44 nats a row; exact is about 0.3.

    Args:
        rates: like the weights, with a leading axis of steps.
        turns: for each array of the weights, in the order of `jax.tree.leaves`, a tuple with a
            matrix an axis, or `None` for an axis longer than `LONGEST`, which is left as it is;
            empty for an array that is not turned.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.infer.descend import Curvature, descend
        >>> curvature = Curvature.init(jnp.zeros(3), 0.25, steps=2)
        >>> descend(lambda w: ((w - 1.0) ** 2).sum(), jnp.zeros(3), curvature, steps=2).tolist()
        [0.75, 0.75, 0.75]
    """

    rates: Any
    turns: tuple

    @staticmethod
    def init(w: Any, start: float, steps: int, turned: Any = True) -> "Curvature":
        """Rates that all are `start`, and identities, for the floating-point arrays of `w`.

        Args:
            w: the weights.
            start: every rate.
            steps: most steps that a descent makes with it.
            turned: a prefix of the tree `w`: which arrays have matrices at all.
        """
        moving = eqx.filter(w, eqx.is_inexact_array)
        rates = jax.tree.map(lambda a: jnp.full((steps, *a.shape), start, a.dtype), moving)
        whether = jax.tree.map(lambda t, part: jax.tree.map(lambda _: t, part), turned, moving)

        def turn(a):
            return tuple(jnp.eye(n, dtype=a.dtype) if n <= LONGEST else None for n in a.shape)

        pairs = zip(jax.tree.leaves(moving), jax.tree.leaves(whether))
        return Curvature(rates, tuple(turn(a) if t else () for a, t in pairs))

    def __call__(self, gradient, step):
        leaves, tree = jax.tree.flatten(gradient)
        for i, turns in enumerate(self.turns):
            for axis, turn in enumerate(turns):
                if turn is not None:
                    leaves[i] = jnp.moveaxis(jnp.tensordot(turn, leaves[i], (1, axis)), 0, axis)
        return jax.tree.map(lambda r, g: r[step] * g, self.rates, jax.tree.unflatten(tree, leaves))

    def check(self, w, steps):
        # An index beyond the last rate would not fail under `jit`: JAX takes the last one again.
        known = {len(rate) for rate in jax.tree.leaves(self.rates)}
        if known and steps > min(known):
            raise ValueError(
                f"A Curvature has rates for the steps it was made for, {min(known)}; the descent "
                f"makes {steps}."
            )

    def reach(self, steps):
        return _mean(jax.tree.map(lambda rate: rate[:steps].sum(0), self.rates))


def _mean(rates: Any) -> Array:
    """Over all entries of all arrays."""
    leaves = jax.tree.leaves(rates)
    return sum(leaf.sum() for leaf in leaves) / sum(leaf.size for leaf in leaves)


def as_step(rate: Any) -> AbstractStep:
    """What users give as a rate, as a step.

    Args:
        rate: a number or a scalar array, a pytree with one rate a weight, or a step already.
    """
    if isinstance(rate, AbstractStep):
        return rate
    leaves: list[Any] = jax.tree.leaves(rate) or [None]  # `None`: an array of a parted module
    if len(leaves) > 1:
        return Rates(rate)
    if leaves[0] is not None and not eqx.is_array_like(leaves[0]):
        raise TypeError(f"A rate is a number, an array or a step; got {leaves[0]!r}.")
    return Rate(leaves[0])


def descend(
    loss: Callable[[Any], Float[Array, ""]],
    w: Any,
    rate: AbstractStep | Array | float,
    steps: int = 1,
    *,
    first_order: bool = False,
    clip: float | None = None,
    checkpoints: int | None = None,
) -> Any:
    """`steps` steps of gradient descent, w <- w - rate * grad loss(w).

    Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML
    2017, equation 1. Differentiable in everything.

    Args:
        loss: of the whole of `w`. A loss without rows (an empty support) has no gradient, so there
            is no step.
        w: any pytree; its floating-point arrays move, the rest stays as it is.
        rate: a number or a scalar array for all of `w`, or a step: `Rate`, `Rates` with one rate a
            weight, or `Curvature`.
        steps: number of steps, at least 0.
        first_order: take the inner gradient as a constant (first-order MAML, section 5.2).
        clip: greatest norm of a step's gradient; `None` (default) for any.
        checkpoints: at least 2: keep the weights of so many steps, evenly spaced, and compute the
            others again where the gradient passes back, in the same way within each run of steps.
            The result is the same; memory grows with the logarithm of `steps`, and so does the
            time of a step. `None` (default) keeps all.

    Returns:
        the adapted `w`.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.infer.descend import descend
        >>> float(descend(lambda w: (w - 1.0) ** 2, jnp.asarray(0.0), 0.25, steps=2))
        0.75
    """
    if steps < 0:
        raise ValueError(f"descend takes 0 steps or more; got {steps}.")
    if checkpoints is not None and checkpoints < 2:
        raise ValueError(f"descend takes 2 checkpoints or more; got {checkpoints}.")
    moving, fixed = eqx.partition(w, eqx.is_inexact_array)
    move = as_step(rate)
    move.check(moving, steps)

    def step(moving, i):
        gradient = jax.grad(lambda m: loss(eqx.combine(m, fixed)))(moving)
        gradient = gradient if clip is None else shorten(gradient, clip)
        gradient = jax.lax.stop_gradient(gradient) if first_order else gradient
        return jax.tree.map(jnp.subtract, moving, move(gradient, i)), None

    return eqx.combine(_loop(step, moving, steps, checkpoints), fixed)


def written_out(w: Any, steps: int) -> bool:
    """Whether a loop of `steps` on the weights `w` is to stand in the program step by step.

    A loop copies what the gradient passes back through into and out of one array. For a few steps
    of a small network the copies take as long as the steps. More steps, or larger networks, would
    take seconds to compile.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(w))
    return steps <= FEW and size <= SMALL


def _loop(step: Callable, start: Any, steps: int, checkpoints: int | None) -> Any:
    """What `steps` of `step(state, i)` make of `start`."""

    def run(state, first, steps):
        unroll = written_out(start, steps)
        return jax.lax.scan(step, state, first + jnp.arange(steps), unroll=unroll)[0]

    def in_runs(state, first, steps):
        """Runs of equal length, of which the gradient keeps the first state only, and so on within
        each of them; then the steps that are left.
        """
        if steps <= checkpoints:
            return run(state, first, steps)
        length = -(-steps // checkpoints)
        runs, left = divmod(steps, length)
        again = jax.checkpoint(functools.partial(in_runs, steps=length))
        starts = first + length * jnp.arange(runs)
        state = jax.lax.scan(lambda state, i: (again(state, i), None), state, starts)[0]
        return in_runs(state, first + runs * length, left) if left else state

    return run(start, 0, steps) if checkpoints is None else in_runs(start, 0, steps)

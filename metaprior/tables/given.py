"""The predictive of one target, with draws of the targets before it integrated out."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from metaprior.heads.draws import uniform_points
from metaprior.posterior import Mixture, Part
from metaprior.tables.quantiles import TINY, invert, outcomes_at

KNOTS = 11  # atoms of a component at each draw


class Given(eqx.Module):
    """A predictive at `n` rows for each of `m` draws of the earlier targets.

    Args:
        mixture: at all `m * n` points, draw after draw.
        before: draws of the `j` earlier targets in model units, `(j, m, n)`.
        removable: the share of each earlier target's variance that more rows of the group could
            remove, `(j, n)`.
    """

    mixture: Mixture
    before: jax.Array
    removable: jax.Array

    @property
    def draws(self) -> int:
        """How many."""
        return self.before.shape[1]

    def split(self, a: jax.Array) -> jax.Array:
        """`(m * n, …)` as `(m, n, …)`."""
        return a.reshape(self.draws, -1, *a.shape[1:])

    def each(self, function: Callable, *more) -> Any:
        """`function` of every draw's predictive (and its entry of `more`); results `(m, n, …)`."""
        parts = self.mixture.parts

        def lead(a):
            return jnp.moveaxis(a.reshape(a.shape[0], self.draws, -1, *a.shape[2:]), 1, 0)

        arrays = [(lead(p.params), None if p.inside is None else lead(p.inside)) for p in parts]

        def one(args):
            arrays, *more = args
            own = [Part(p.head, a, p.log_weight, b) for p, (a, b) in zip(parts, arrays)]
            return function(Mixture(tuple(own)), *more)

        return jax.lax.map(one, (arrays, *more))

    def together(self) -> Mixture:
        """The predictive at `n` rows with the draws as components beside one another."""

        def merge(a):
            return a.reshape(a.shape[0] * self.draws, -1, *a.shape[2:])

        parts = []
        for part in self.mixture.parts:
            inside = None if part.inside is None else merge(part.inside)
            weight = jnp.repeat(part.log_weight, self.draws) - jnp.log(1.0 * self.draws)
            parts.append(Part(part.head, merge(part.params), weight, inside))
        return Mixture(tuple(parts))

    def quantiles(self, levels: jax.Array) -> jax.Array:
        """Quantiles `(l, n)` with the earlier targets integrated out.

        A component is replaced by few atoms, in other places at every draw, so that the atoms of
        all draws lie close together. One step of Newton's method from there is within 1e-3 of the
        level.
        """
        shift = jnp.asarray(uniform_points(self.draws, 2)[:, 1] - 0.5, self.before.dtype)
        values, mass = self.each(lambda mixture, shift: mixture.weighted_atoms(KNOTS, shift), shift)

        def join(a):
            return jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1)

        at = jnp.broadcast_to(levels[:, None], (len(levels), values.shape[1]))
        start = invert(join(values), join(mass))(at)
        most = 0.1 * jnp.sqrt(self.moments()[1][:, 0])

        def newton(args):
            level, y = args
            at = jnp.tile(y, self.draws)[:, None]
            below = self.split(self.mixture.cdf(at)[:, 0]).mean(0)
            density = self.split(jnp.exp(self.mixture.log_prob(at))).mean(0)
            return y - jnp.clip((below - level) / jnp.maximum(density, TINY), -most, most)

        return jax.lax.map(newton, (levels, start))

    def outcomes_at(self, levels: jax.Array) -> jax.Array:
        """One outcome for each draw, at levels `(m, n)`.

        The level chooses a component. What is left of the level is uniform again, and is the level
        of the outcome within that component.
        """
        if self.mixture.parts[0].head.classes:
            return outcomes_at(self.mixture, levels.reshape(1, -1)).reshape(levels.shape)

        u, weight = levels.reshape(-1), jnp.exp(self.mixture.log_weights())
        upper = jnp.cumsum(weight)
        chosen = jnp.minimum((u[:, None] > upper).sum(-1), len(weight) - 1)
        rest = jnp.clip((u - (upper - weight)[chosen]) / weight[chosen], TINY, 1 - TINY)

        value, first = jnp.zeros_like(u), 0
        for part in self.mixture.parts:
            own = chosen - first
            params = part.params[jnp.clip(own, 0, len(part.log_weight) - 1), jnp.arange(len(u))]
            here = jax.vmap(lambda params, level: part.head.quantile(params, level)[0])(
                params, rest
            )
            value = jnp.where((own >= 0) & (own < len(part.log_weight)), here, value)
            first += len(part.log_weight)
        return value.reshape(levels.shape)

    def share(self) -> jax.Array:
        """How much of the spread over draws more rows of the group could remove, `(n,)`.

        To first order: the shares of the earlier targets, weighted by how much of the spread goes
        with each.
        """
        mean = self.split(self.mixture.mean())
        if not len(self.before):
            return jnp.zeros(mean.shape[1], mean.dtype)

        def center(a, axis):
            return a - a.mean(axis, keepdims=True)

        before = center(self.before, 1)
        together = (before[..., None] * center(mean, 0)[None]).mean(1)
        weight = (together**2).sum(-1) / jnp.maximum((before**2).mean(1), 1e-12) + 1e-9
        return (weight * self.removable).sum(0) / weight.sum(0)

    def functions(self) -> tuple[jax.Array, jax.Array]:
        """Weights `(s,)` of the components and their means `(s, n, p)`, averaged over the draws.

        A component is one function, the same at all draws. More rows can remove what differs
        between the means.
        """
        parts = self.mixture.parts
        means = jnp.concatenate([p.head.mean(p.params) for p in parts])
        means = means.reshape(len(means), self.draws, -1, means.shape[-1]).mean(1)
        return jnp.exp(self.mixture.log_weights()), means

    def moments(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mean, variance and the part of it that more rows can remove, `(n, p)` each.

        The earlier targets are integrated out. What a closed form leaves open of a function counts
        as alike at all draws: the removable part is at most too large.
        """
        mean, noise = self.split(self.mixture.mean()), self.split(self.mixture.variance())
        weight, means = self.functions()
        inside = self.split(self.mixture.epistemic() - self.mixture._spread()).mean(0)
        own = jnp.tensordot(weight, (means - mean.mean(0)) ** 2, axes=1) + jnp.maximum(inside, 0.0)
        between = mean.var(0)
        return mean.mean(0), noise.mean(0) + between, own + self.share()[:, None] * between

    def removable_share(self) -> jax.Array:
        """Share of this target's variance that more rows of the group could remove, `(n,)`."""
        _, total, part = self.moments()
        return part.sum(-1) / jnp.maximum(total.sum(-1), 1e-12)

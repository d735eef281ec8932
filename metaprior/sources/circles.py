"""Circles in the plane of which only points inside are shown, and their exact posterior."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior
from metaprior.sources.shots import shots
from metaprior.task import Data, Task

# Points of the disc that are drawn to find one in the box. At least a quarter of the disc is in it,
# so that none is found in 1e-8 of all cases.
TRIES = 64
SIDE, RADII = 48, 96  # of the posterior's grid: centres along an axis, cells of the radius


class Circles(eqx.Module):
    """Inside a circle or not.

    Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018, section 5. The
    paper shows pictures and no ranges. Here the centre is uniform in the box [0, 5]² and the radius
    in [0.1, 2]. Support rows are uniform in the part of the disc that lies in the box, and all have
    label 1: the learner sees examples of one class alone. Query rows are uniform in the whole box.
    Their label (1 inside, 0 outside) is wrong with probability `flip`, which keeps every likelihood
    finite.

    Args:
        support, query: rows of a task (5 + 20).
        fewest: support rows are uniform in `fewest` … `support`; `None` (default) shows all of
            them.
        box: side of the box.
        radius: lowest and highest value.
        flip: share of wrong query labels.

    Example:
        >>> import jax
        >>> from metaprior.sources.circles import Circles
        >>> source = Circles(support=2)
        >>> task = source(jax.random.key(0))
        >>> source.exact(task.support).predict(task.query.x, key=None, samples=1).mean().shape
        (20, 2)
    """

    support: int = eqx.field(static=True, default=5)
    query: int = eqx.field(static=True, default=20)
    fewest: int | None = eqx.field(static=True, default=None)
    box: float = eqx.field(static=True, default=5.0)
    radius: tuple[float, float] = eqx.field(static=True, default=(0.1, 2.0))
    flip: float = eqx.field(static=True, default=0.01)

    def circle(self, key) -> tuple[Float[Array, "2"], Float[Array, ""]]:
        """Centre and radius of the task of this key."""
        c_key, r_key = jr.split(jr.split(key, 5)[0])
        center = jr.uniform(c_key, (2,), maxval=self.box)
        return center, jr.uniform(r_key, (), minval=self.radius[0], maxval=self.radius[1])

    def __call__(self, key) -> Task:
        _, s_key, q_key, e_key, k_key = jr.split(key, 5)
        center, radius = self.circle(key)
        angle, share = jr.uniform(s_key, (2, self.support, TRIES))
        arm = radius * jnp.sqrt(share)  # the root makes points uniform in the disc
        way = jnp.stack([jnp.cos(2 * jnp.pi * angle), jnp.sin(2 * jnp.pi * angle)], -1)
        tries = center + arm[..., None] * way
        first = jnp.argmax(((tries >= 0) & (tries <= self.box)).all(-1), axis=1)
        positive = jnp.take_along_axis(tries, first[:, None, None], axis=1)[:, 0]
        x = jr.uniform(q_key, (self.query, 2), maxval=self.box)
        inside = ((x - center) ** 2).sum(1) <= radius**2
        y = inside ^ jr.bernoulli(e_key, self.flip, (self.query,))
        y = jnp.concatenate([jnp.ones(self.support), y.astype(x.dtype)])
        rows = Data.of(jnp.concatenate([positive, x]), y)
        return shots(rows, self.support, self.fewest, key=k_key)

    def exact(self, support: Data) -> "CirclePosterior":
        """Bayes' rule for this very process; all rows of `support` are taken as positive."""
        return CirclePosterior(self, support)


def quarter(
    h: Float[Array, "a r"], w: Float[Array, "b r"], r: Float[Array, "r"]
) -> Float[Array, "a b r"]:
    """Area of a quarter disc of radius r inside a rectangle w wide and h high, both at most r.

    Where the rectangle's far corner is inside the disc, this is the rectangle's area. Else it is
    H(w) + H(h) - π r² / 4, where H(w) is the area of the quarter disc left of w.
    """

    def left(s):
        triangle = s * jnp.sqrt(jnp.maximum(r**2 - s**2, 0))
        sector = r**2 * jnp.arcsin(jnp.minimum(s / r, 1))
        return 0.5 * (triangle + sector)

    cut = left(h)[:, None] + left(w)[None] - jnp.pi * r**2 / 4
    return jnp.where(h[:, None] ** 2 + w[None] ** 2 <= r**2, h[:, None] * w[None], cut)


class CirclePosterior(AbstractPosterior):
    """Bayes' rule for circles of which K points inside are known.

    p(centre, radius | points) ∝ 1[all inside] A(centre, radius)^-K, where A is the area of the disc
    in the box. Centres are a grid of 48 x 48 cells, finest around the points. Integrals over the
    radius take the density as a power law in each of 96 cells, which is exact for discs inside the
    box. Their ends, the distances to support and query points, are not rounded to the grid.

    Args:
        source: the process.
        support: what was observed; all rows are positive.
    """

    source: Circles
    support: Data

    def _centers(self):
        """Places along both axes `(2, g)` and widths of their cells `(2, g)`."""
        data, box, reach = self.support, self.source.box, self.source.radius[1]
        shown = data.mask[:, None]
        high = jnp.minimum(jnp.where(shown, data.x, box).min(0, initial=box) + reach, box)
        low = jnp.maximum(jnp.where(shown, data.x, 0.0).max(0, initial=0.0) - reach, 0.0)
        middle = jnp.where(shown, data.x, 0.0).sum(0) / jnp.maximum(data.count, 1)
        middle = jnp.where(data.count > 0, jnp.clip(middle, low, high), box / 2)

        # Even steps of arcsinh((place - middle) / fine): fine around the points, coarse far away.
        square = jnp.where(shown, data.x - middle, 0.0) ** 2
        spread = jnp.sqrt(square.sum(0) / jnp.maximum(data.count, 1))
        fine = jnp.where(data.count > 0, jnp.maximum(spread, 0.2), box)[:, None]
        ends = jnp.arcsinh((jnp.stack([low, high], 1) - middle[:, None]) / fine)
        u = jnp.linspace(0.0, 1.0, 2 * SIDE + 1, dtype=data.x.dtype)
        places = middle[:, None] + fine * jnp.sinh(ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * u)
        return places[:, 1::2], jnp.diff(places[:, ::2])

    def _table(self):
        """What `_beyond` reads, for every centre.

        Returns:
            the centre `(c, 2)`, the log area of its cell `(c,)`, the smallest possible radius
            `(c,)`, and at the edges of the radius' cells log A^-K r and the integral of A^-K from
            there to the largest radius, `(c, r)` each.
        """
        data, (low, high) = self.support, self.source.radius
        place, width = self._centers()
        r = jnp.geomspace(low, high, RADII + 1, dtype=data.x.dtype)

        # The disc's area in the box: four quarters, each cut by the box's sides next to it.
        sides = [jnp.minimum(d[..., None], r) for d in (place, self.source.box - place)]
        quarters = jnp.stack([quarter(one[0], two[1], r) for one in sides for two in sides])
        area = quarters.sum(0).reshape(-1, RADII + 1)

        center = jnp.stack([jnp.repeat(place[0], SIDE), jnp.tile(place[1], SIDE)], 1)
        log_cell = jnp.log(width[0][:, None] * width[1][None]).ravel()
        square = ((center[:, None] - data.x[None]) ** 2).sum(-1)
        nearest = jnp.sqrt(jnp.where(data.mask, square, 0.0).max(1, initial=0.0)).clip(low)

        # Scaled by the largest density that is possible, so that exponentials do not overflow. The
        # densities of radii that are not possible are not used, and are only kept from overflow.
        g = jnp.log(r) - data.count * jnp.log(area)  # d r = r d log r
        at = jnp.take_along_axis(g, self._cell(nearest)[0][:, None], axis=1)[:, 0]
        g = jnp.minimum(g - jnp.where(nearest < high, at, -jnp.inf).max(), 30.0)
        pieces = self._piece(g[:, :-1], g[:, 1:], 0.0)
        tail = jnp.cumsum(pieces[:, ::-1], axis=1)[:, ::-1]
        return center, log_cell, nearest, g, jnp.pad(tail, ((0, 0), (0, 1)))

    def _cell(self, radius):
        """Cell of a radius, and the share of the cell (in log r) below it."""
        low, high = self.source.radius
        t = jnp.clip(jnp.log(radius / low) / jnp.log(high / low), 0.0, 1.0) * RADII
        cell = jnp.minimum(t.astype(int), RADII - 1)
        return cell, t - cell

    def _piece(self, g0, g1, share):
        """Integral over the part of a cell above `share`, exp(g) being a power law in it."""
        step, rest = g1 - g0, 1 - share
        flat = jnp.abs(step) < 1e-4  # where the formula is 0 / 0
        part = jnp.where(flat, rest, -jnp.expm1(-rest * step) / jnp.where(flat, 1.0, step))
        low, high = self.source.radius
        return jnp.exp(g1) * part * (jnp.log(high / low) / RADII)

    def _beyond(self, table, radius: Float[Array, "c n"]) -> Float[Array, "c n"]:
        """Probability mass of each centre's radii above `radius`, not normalised."""
        _, _, nearest, g, tail = table
        cell, share = self._cell(jnp.maximum(radius, nearest[:, None]))

        def at(values, i):
            return jnp.take_along_axis(values, i, axis=1)

        return at(tail, cell + 1) + self._piece(at(g, cell), at(g, cell + 1), share)

    def _weights(self, table) -> Float[Array, "c"]:
        """Probability of each centre."""
        _, log_cell, nearest, _, _ = table
        total = jnp.exp(log_cell) * self._beyond(table, nearest[:, None])[:, 0]
        return total / total.sum()

    def _params(self, inside):
        """Logits of a label, given the probability of being inside."""
        p = self.source.flip + (1 - 2 * self.source.flip) * inside
        return jnp.log(jnp.stack([1 - p, p], -1))

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        table = self._table()
        center, log_cell, nearest = table[:3]
        distance = jnp.sqrt(((center[:, None] - x[None]) ** 2).sum(-1))

        def mass(radius):
            return jnp.tensordot(jnp.exp(log_cell), self._beyond(table, radius), 1)

        # A point is inside where the radius is larger than its distance from the centre.
        inside = jnp.clip(mass(distance) / mass(nearest[:, None]), 0, 1)
        return Mixture.equal(Categorical(2), self._params(inside)[None])

    def circles(self, *, key, samples: int) -> tuple[Float[Array, "s 2"], Float[Array, "s"]]:
        """Centres (of cells) and radii drawn from the posterior."""
        table = self._table()
        c_key, r_key = jr.split(key)
        i = jr.categorical(c_key, jnp.log(self._weights(table)), shape=(samples,))
        mine = tuple(a[i] for a in table)
        smallest = mine[2]
        left = jr.uniform(r_key, (samples,)) * self._beyond(mine, smallest[:, None])[:, 0]

        # The radius beyond which that much of the mass lies, by bisection.
        def halve(_, ends):
            middle = 0.5 * (ends[0] + ends[1])
            more = self._beyond(mine, middle[:, None])[:, 0] > left
            return jnp.where(more, middle, ends[0]), jnp.where(more, ends[1], middle)

        largest = jnp.full_like(left, self.source.radius[1])
        ends = jax.lax.fori_loop(0, 25, halve, (smallest, largest))
        return mine[0], 0.5 * (ends[0] + ends[1])

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        center, radius = self.circles(key=key, samples=samples)
        inside = ((x[None] - center[:, None]) ** 2).sum(-1) <= radius[:, None] ** 2
        return Mixture.equal(Categorical(2), self._params(inside.astype(x.dtype)))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        """Log probability of all labels together.

        As the radius grows, the points enter the disc one by one. For each centre this is a sum
        over the intervals of the radius between their distances.
        """
        table = self._table()
        distance = jnp.sqrt(((table[0][:, None] - data.x[None]) ** 2).sum(-1))
        label = data.y[:, 0].astype(int)
        log_label = self._params(jnp.asarray([0.0, 1.0], data.x.dtype))[:, label].T
        two = jnp.where(data.mask[:, None], log_label, 0.0)  # outside and inside
        order = jnp.argsort(distance, axis=1)
        steps = jnp.cumsum((two[:, 1] - two[:, 0])[order], axis=1)
        log_p = two[:, 0].sum() + jnp.pad(steps, ((0, 0), (1, 0)))
        ends = jnp.pad(jnp.take_along_axis(distance, order, axis=1), ((0, 0), (1, 0)))
        mass = self._beyond(table, ends)
        share = jnp.maximum(-jnp.diff(jnp.pad(mass, ((0, 0), (0, 1)))), 0.0)
        log_c = jnp.where(mass[:, 0] > 0, table[1], -jnp.inf)
        each = jax.nn.logsumexp(log_p + log_c[:, None], b=share)
        return each - jax.nn.logsumexp(log_c, b=mass[:, 0])

"""The exact posterior of a learned prior, by sampling."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.infer.evidence import Estimate, evidence
from metaprior.infer.nuts import Chains, nuts
from metaprior.method import AbstractGenerative, AbstractMethod, Spec
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior, Particles
from metaprior.task import Data, Task

# Up to so many numbers of w are watched one by one, and moved by their correlations.
SMALL = 64
GROUPS = 2  # of each chain, in which joint densities are estimated apart
PARTICLES = 1000  # in all, of which a joint density is estimated


class NUTS(AbstractMethod):
    """Hoffman & Gelman, "The No-U-Turn Sampler", JMLR 2014: the reference for a learned prior.

    It is trained as another method that has an explicit prior p(w) and likelihood p(y | x, w)
    (`AbstractGenerative`; PLATIPUS is none: its prior is that of the weights before their descent
    on the support). The posterior is draws from p(w) times the product of p(y | x, w) over the
    support, whatever the other method's own approximation is. Each task costs thousands of
    gradients, so this is for comparison and for few tasks. The posterior says how far its draws
    can be trusted (`ByChains.chains`).

    Args:
        base: the other method.
        warmup, draws, chains, dense, doublings: of the sampler, see `metaprior.infer.nuts.nuts`;
            chains start at draws of the prior, and go on where they do not agree.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> init = metaprior.methods.NUTS.init
        >>> nuts = init(spec, features="linear", draws=50, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = nuts.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
        >>> bool(posterior.chains.rhat < 1.1), int(posterior.chains.divergences)
        (True, 0)
    """

    base: AbstractGenerative
    warmup: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)
    chains: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)
    doublings: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        if isinstance(self.base, AbstractGenerative) and self.base.prior is not None:
            return
        from metaprior.methods import METHODS  # here, as THE TABLE has NUTS among its rows

        rows = [row for row in METHODS.values() if issubclass(row.method, AbstractGenerative)]
        raise TypeError(
            f"NUTS needs a prior of the weights that predict; {type(self.base).__name__} has none. "
            f"Bases: {', '.join(row.name for row in rows)} (llama with a precision)."
        )

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        base: Any = None,
        warmup: int = 300,
        draws: int = 250,
        chains: int = 4,
        dense: bool = False,
        doublings: int = 2,
        **hyper: Any,
    ) -> Self:
        """A base with its defaults.

        Args:
            spec: shape of the tasks.
            key: of the base's initial values.
            base: a name from `METHODS` or a class. `None` (default): `alpaca` for numbers, `abml`
                for classes.
            warmup, draws, chains: 1000 draws a task with the defaults. Half chains of fewer than
                125 draws differ by chance as much as an R-hat of 1.01 allows.
            dense, doublings: see `metaprior.infer.nuts.nuts`.
            hyper: options of the base's own `init`.
        """
        from metaprior.methods import get

        base = ("abml" if spec.head.classes else "alpaca") if base is None else base
        base = get(base) if isinstance(base, str) else base
        return cls(base.init(spec, key=key, **hyper), warmup, draws, chains, dense, doublings)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        if not isinstance(self.base, AbstractMethod):
            name = type(self.base).__name__
            raise TypeError(f"{name} is not trained, and so is NUTS with it as its base.")
        return self.base.loss(task, key=key)

    def log_prob(self, w: Any, data: Data) -> Float[Array, ""]:
        """Of the rows of `data` given `w`, in nats."""
        head = self.base.head
        each = head.log_prob(head.params(self.base.apply(w, data.x)), data.y)
        return jnp.where(data.mask, each, 0.0).sum()

    def run(self, support: Data, *, key: PRNGKeyArray) -> Chains:
        """Chains of w given the support, and how well the sampler did.

        Where `w` has more than `SMALL` numbers, as the weights of a network have, it is not the
        weights that must agree but the network's outputs at the observed rows.
        """
        start_key, key = jr.split(key)

        def log_prob(w):
            return self.base.prior.log_prob(w) + self.log_prob(w, support)

        def draw(k):
            return self.base.prior.sample(key=k)

        def outputs(w):
            return jnp.where(support.mask[:, None], self.base.apply(w, support.x), 0.0).ravel()

        start = eqx.filter_vmap(draw)(jr.split(start_key, self.chains))
        arrays = jax.tree.leaves(eqx.filter(start, eqx.is_inexact_array))
        large = sum(a.size for a in arrays) > SMALL * self.chains
        return nuts(
            log_prob,
            start,
            warmup=self.warmup,
            draws=self.draws,
            dense=self.dense,
            doublings=self.doublings,
            watch=outputs if large else None,
            key=key,
        )

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> "ByChains":
        chains = self.run(support, key=key)
        return ByChains(Particles(chains.w, self.base.apply, self.base.head), chains, self, support)


class ByChains(AbstractPosterior):
    """Draws of a sampler, and how far they can be trusted.

    Args:
        base: the draws as functions.
        chains: the sampler's own account: R-hat, effective number of draws, divergences.
        method: whose posterior it is.
        support: what was observed.
    """

    base: Particles
    chains: Chains
    method: NUTS
    support: Data

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return self.base.predict(x, key=key, samples=samples)

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return self.base.sample(x, key=key, samples=samples)

    def joint(self, data: Data, *, key: PRNGKeyArray) -> Estimate:
        """Log density of all rows together, in nats, and its Monte Carlo error.

        The mean density over the draws would be right in the limit, but none of them may lie where
        many rows together are likely. So the draws are led there by steps
        (`metaprior.infer.evidence.evidence`).
        """
        moving, fixed = eqx.partition(self.chains.w, eqx.is_inexact_array)
        first = jax.tree.map(lambda a: a[0], moving)
        unravel = ravel_pytree(first)[1]
        groups = GROUPS * self.chains.chains

        # A regular part of each half of each chain; odd ends are left out.
        flat = jax.vmap(lambda w: ravel_pytree(w)[0])(moving)
        half = len(flat) // groups
        every = max(1, half * groups // PARTICLES)
        flat = flat[: half * groups].reshape(groups, half, -1)[:, ::every]

        def weights(v):
            return eqx.combine(unravel(v), fixed)

        def log_now(v):
            return self.method.base.prior.log_prob(weights(v)) + self.method.log_prob(
                weights(v), self.support
            )

        def log_more(v):
            return self.method.log_prob(weights(v), data)

        return evidence(log_now, log_more, flat, dense=flat.shape[-1] <= SMALL, key=key)

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        return self.joint(data, key=key).value

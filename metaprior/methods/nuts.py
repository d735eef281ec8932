"""The exact posterior of a learned prior, by sampling."""

from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.infer.nuts import Chains, nuts
from metaprior.method import AbstractGenerative, AbstractMethod, Spec
from metaprior.posterior import Particles
from metaprior.task import Data, Task


class NUTS(AbstractMethod):
    """Hoffman & Gelman, "The No-U-Turn Sampler", JMLR 2014: the reference for a learned prior.

    It is trained as another method that has an explicit prior p(w) and likelihood p(y | x, w)
    (`AbstractGenerative`; PLATIPUS is none: its prior is that of the weights before their descent
    on the support). The posterior is draws from p(w) times the product of p(y | x, w) over the
    support, whatever the other method's own approximation is. Each task costs thousands of
    gradients, so this is for comparison and for few tasks.

    Args:
        base: the other method.
        warmup, draws, chains: of the sampler, see `metaprior.infer.nuts.nuts`; chains start at
            draws of the prior.
        dense: whether its mass matrix has correlations.

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
    """

    base: AbstractGenerative
    warmup: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)
    chains: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)

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
        draws: int = 100,
        chains: int = 4,
        dense: bool = False,
        **hyper: Any,
    ) -> Self:
        """A base with its defaults.

        Args:
            spec: shape of the tasks.
            key: of the base's initial values.
            base: a name from `METHODS` or a class. `None` (default): `alpaca` for numbers, `abml`
                for classes.
            warmup, draws, chains: 400 draws a task with the defaults. That gives a mean to 0.1 of a
                standard deviation where a quarter of them are effective.
            dense: see `metaprior.infer.nuts.nuts`.
            hyper: options of the base's own `init`.
        """
        from metaprior.methods import get

        base = ("abml" if spec.head.classes else "alpaca") if base is None else base
        base = get(base) if isinstance(base, str) else base
        return cls(base.init(spec, key=key, **hyper), warmup, draws, chains, dense)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        if not isinstance(self.base, AbstractMethod):
            name = type(self.base).__name__
            raise TypeError(f"{name} is not trained, and so is NUTS with it as its base.")
        return self.base.loss(task, key=key)

    def run(self, support, *, key) -> Chains:
        """Chains of w given the support, and how well the sampler did."""
        start_key, key = jr.split(key)
        head = self.base.head

        def log_prob(w):
            each = head.log_prob(head.params(self.base.apply(w, support.x)), support.y)
            return self.base.prior.log_prob(w) + jnp.where(support.mask, each, 0.0).sum()

        def draw(k):
            return self.base.prior.sample(key=k)

        start = eqx.filter_vmap(draw)(jr.split(start_key, self.chains))
        return nuts(
            log_prob, start, warmup=self.warmup, draws=self.draws, dense=self.dense, key=key
        )

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles(self.run(support, key=key).w, self.base.apply, self.base.head)

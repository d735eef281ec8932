"""The best that a prediction of single points can do: what the form of a posterior forbids."""

from typing import Any

import jax.numpy as jnp

from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior

BY_POINT = "exact, by point"


class ByPoint(AbstractPosterior):
    """The marginals of a posterior, each point by itself; of numbers, one normal a point.

    The normal has the marginal's mean and variance: of all normals it has the least expected NLL.
    So no learner whose prediction is one normal a point, whatever its network, can come nearer to
    `exact` on average. Its functions at different points are independent.

    Args:
        exact: the posterior whose marginals are taken.
    """

    exact: AbstractPosterior

    def predict(self, x, *, key, samples):
        whole = self.exact.predict(x, key=key, samples=samples)
        if whole.parts[0].head.classes:
            return whole
        moments = jnp.stack([whole.mean(), jnp.sqrt(whole.variance())], -1)
        return Mixture.equal(Gaussian(moments.shape[-2]), moments[None])

    def sample(self, x, *, key, samples):
        return self.predict(x, key=key, samples=samples)

    def joint_log_prob(self, data, *, key, samples):
        each = self.predict(data.x, key=key, samples=samples).log_prob(data.y)
        return jnp.where(data.mask, each, 0.0).sum()


class KnownByPoint(AbstractLearner):
    """The learner that knows how tasks are made, and predicts point by point.

    Args:
        source: has `exact(support) -> AbstractPosterior`.
    """

    source: Any

    def posterior(self, support, *, key):
        return ByPoint(self.source.exact(support))

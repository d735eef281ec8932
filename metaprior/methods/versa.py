"""Amortised inference of a last layer."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead, Categorical
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.variational import draw
from metaprior.method import AbstractMethod, Spec
from metaprior.methods.embedded import in_one_pass
from metaprior.mixture import log_sum
from metaprior.nets.mlp import apply, mlp, network
from metaprior.nets.sets import DeepSet, memberships
from metaprior.posterior import Sampled
from metaprior.task import Data, Task


class VERSA(AbstractMethod):
    """Gordon et al., "Meta-Learning Probabilistic Inference for Prediction", ICLR 2019.

    raw(x) = W h(x) + b, with features h that all tasks share. A network gives q(W, b | support), a
    diagonal normal, in one pass.

    - Classes (section 3): the weights of class c come from the mean ν_c of h(x) over the rows of
      that class alone, so that the same network serves any class.
    - Numbers (section 4, in spirit): all weights come from a summary of the support.

    The objective is that of equation 4, with L draws and no KL: -mean over the query of log 1/L
    sum_l p(y | x, W_l, b_l). It averages probabilities, not logits.

    As in the other methods here, a learned row counts as one more observation of every class (and
    of the summary). So a class without rows, and an empty support, are well defined. The network
    also sees log(1 + number of rows).

    Args:
        net: h.
        encoder: of the support; `None` for classes.
        null: the learned row of every class, `(C, e)`; `None` for numbers.
        amortise: from codes `(k, c)` to means and log standard deviations of the last layer's `r`
            rows of `e + 1` numbers, the bias last; for classes k = r, for numbers k = 1.
        head: what is predicted.
        samples: L.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Categorical
        >>> spec = metaprior.Spec(2, Categorical(3))
        >>> versa = metaprior.methods.VERSA.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([[0.0, 1.0]], [2])
        >>> posterior = versa.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 2))
        >>> posterior.predict(x, key=jax.random.key(2), samples=10).mean().shape
        (4, 3)
    """

    net: eqx.nn.MLP
    encoder: DeepSet | None
    null: Float[Array, "c e"] | None
    amortise: eqx.nn.MLP
    head: AbstractHead
    samples: int = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 128,
        depth: int = 2,
        features: int = 32,
        samples: int = 32,
    ) -> Self:
        """Networks of equal size.

        The amortisation network has two hidden layers of ELUs, as in the authors' code.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units (the authors' images have 256) and layers of the networks.
            features: numbers in h(x) (32, as in ALPaCA; the authors' images have 256).
            samples: L, draws in training, at least 1. The log of an average over few draws favours
                a narrow q. In the paper's toy problem the log variance comes out 1.1 too low with
                L = 10 (the authors' code), and 0.3 too low with 32.
        """
        if samples < 1:
            raise ValueError(
                f"VERSA needs at least 1 draw of the last layer; got samples={samples}."
            )
        classes, rows = spec.head.classes, spec.head.raw_dim
        keys = jr.split(key, 4)
        net = network(spec, features, width, depth, key=keys[0])
        if isinstance(spec.head, Categorical):
            # One class at a time: its code in, its row of the last layer out.
            encoder = None
            null = 0.1 * jr.normal(keys[2], (classes, features))
            inputs, outputs = features + 1, 2 * (features + 1)
        else:
            encoder = DeepSet.init(spec, width=width, depth=depth, key=keys[1])
            null = None
            inputs, outputs = width, 2 * rows * (features + 1)
        amortise = mlp(inputs, outputs, width, 2, key=keys[3], activation=jax.nn.elu)
        return cls(net, encoder, null, amortise, spec.head, samples)

    def codes(self, support) -> Float[Array, "k c"]:
        """ν and log(1 + number of rows) of every class; for numbers the summary of the support."""
        if self.encoder is not None:
            return self.encoder.summary(support)[None]
        hot = memberships(support, self.head.classes)
        count = hot.sum(0)[:, None]
        mean = (self.null + hot.T @ apply(self.net, support.x)) / (1.0 + count)  # ty: ignore[unsupported-operator]
        return jnp.concatenate([mean, jnp.log1p(count)], axis=1)

    def q(self, support: Data) -> Diagonal:
        """q(W, b | support), `(r, e + 1)`; standard deviations are around 0.1 at first."""
        out = apply(self.amortise, self.codes(support)).reshape(self.head.raw_dim, 2, -1)
        return Diagonal(out[:, 0], out[:, 1] - 2.0)

    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs for a last layer `w`."""
        return apply(self.net, x) @ w[:, :-1].T + w[:, -1]

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        if self.encoder is None:
            self, task = in_one_pass(self, task)
        q, query = self.q(task.support), task.query

        def risk(k):
            w_key, head_key = jr.split(k)
            params = self.head.params(self.apply(draw(q, w_key), query.x))
            return self.head.loss(params, query.y, key=head_key)

        each = jax.vmap(risk)(jr.split(key, self.samples))  # (L, n)
        if not self.head.density:  # a score, of which there is no probability to average
            return query.mean(each.mean(0))
        return query.mean(jnp.log(float(self.samples)) - log_sum(-each))

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        return Sampled(eqx.Partial(draw, self.q(support)), self.apply, self.head)

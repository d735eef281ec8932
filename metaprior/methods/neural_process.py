"""Neural processes: a latent variable a task, with amortised inference."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead, Categorical, Flow, Gaussian
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.attention import Attention
from metaprior.nets.mlp import apply, mlp, zero_last
from metaprior.nets.sets import ByClass, DeepSet
from metaprior.posterior import Sampled
from metaprior.task import Data, Task

ENCODERS = {"deep set": DeepSet, "attention": Attention}
OBJECTIVES = ("ml", "elbo")
LATENTS = ("normal", "flow")


def _raw(w, x):
    method, support, z = w
    return method.raw(support, x, z)


def _draw(method, support, params, key):
    return method, support, method.latent.sample(params, key=key)


class NP(AbstractMethod):
    """Garnelo et al., "Neural Processes", ICML 2018 workshop; and two relatives.

    The task parameter is a vector z with q(z | set). n is the number of query rows and -log p is
    the head's loss. The objective is one of

    - `"ml"`: -1/n log 1/S sum_s p(query | z_s), z_s ~ q(z | support): Foong et al., "Meta-Learning
      Stationary Stochastic Process Prediction with Convolutional Neural Processes", NeurIPS 2020.
      What is trained is what is predicted, a mixture over draws given the support.
    - `"elbo"`: the negative of Garnelo's equation 9, a bound on the log density of the query given
      the support: 1/n E_{z ~ q(z | support ∪ query)} [-log p(query | z) + log q(z | support ∪
      query) - log q(z | support)]. Both terms are Monte Carlo, so q may have any shape.

    The row `anp` is Kim et al., "Attentive Neural Processes", ICLR 2019: `deterministic=True` gives
    the decoder also what each query point reads from the support itself.

    In the row `flow_np` q(z | set) is a normalising flow, with numbers that a network makes from
    the set (Rezende & Mohamed, "Variational Inference with Normalizing Flows", ICML 2015). What is
    known of the task then need not be normal.

    z hardly tells whose row was which class's. For classes, unless `deterministic`, logits from
    each class's own rows are added, as in CNP. z then moves what the rows alone say.

    Args:
        encoder: of a set of observations.
        last: from its summary to the numbers of q(z | set).
        latent: reads them as a density of z.
        gate: A, a linear map of x to as many numbers as z has.
        decoder: from x, z, their products z ∘ A(x) and what the point has read to raw outputs. The
            products serve functions whose slopes are in z. They took 0.13 to 0.18 nats a point off
            sine waves and lines.
        head: what is predicted.
        samples, objective, deterministic: settings of `init`.
        by_class: logits from each class's own rows; `None` for none.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> np = metaprior.methods.NP.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = np.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=10).mean().shape
        (4, 1)
    """

    encoder: DeepSet | Attention
    last: eqx.nn.MLP
    latent: Gaussian | Flow
    gate: eqx.nn.Linear
    decoder: eqx.nn.MLP
    head: AbstractHead
    samples: int = eqx.field(static=True)
    objective: str = eqx.field(static=True)
    deterministic: bool = eqx.field(static=True)
    by_class: ByClass | None = None

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 64,
        depth: int = 2,
        latent: int = 32,
        samples: int = 16,
        objective: str = "ml",
        encoder: str = "attention",
        q: str = "normal",
        deterministic: bool = False,
    ) -> Self:
        """Networks of equal width.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units and layers of encoder and decoder (64 and 2: the attention of
                `acnp`).
            latent: numbers in z (32, half the width; a choice of this package, not searched over).
            samples: draws of z a task in training, at least 1; `"elbo"` needs fewer than 16.
            objective: `"ml"` or `"elbo"`.
            encoder: `"attention"`, self-attention among the rows as in Kim et al., or `"deep set"`,
                Garnelo's mean over rows. On sine waves and lines, 5,000 steps, the mean stayed 0.6
                nats a point behind with 10 rows.
            q: `"normal"` with a diagonal covariance, or `"flow"`.
            deterministic: whether query points also read the support themselves. With the encoder
                `"deep set"` all of them read the same.
        """
        for name, value, known in (
            ("encoder", encoder, ENCODERS),
            ("objective", objective, OBJECTIVES),
            ("q", q, LATENTS),
        ):
            if value not in known:
                raise ValueError(f"NP has {name} {' or '.join(map(repr, known))}; got {value!r}.")
        if samples < 1:
            raise ValueError(f"NP needs at least 1 draw of z a task; got samples={samples}.")
        e_key, l_key, q_key, g_key, d_key = jr.split(key, 5)
        density = Flow.init(latent, key=q_key, hidden=width) if q == "flow" else Gaussian(latent)
        inputs = spec.x_dim + 2 * latent + deterministic * width
        decoder, own = mlp(inputs, spec.head.raw_dim, width, depth, key=d_key), None
        if isinstance(spec.head, Categorical) and not deterministic:
            decoder, c_key = zero_last(decoder), jr.fold_in(key, 1)
            own = ByClass.init(spec.x_dim, spec.head.classes, width=width, depth=depth, key=c_key)
        return cls(
            ENCODERS[encoder].init(spec, width=width, depth=depth, key=e_key),
            mlp(width, density.raw_dim, width, 1, key=l_key),
            density,
            eqx.nn.Linear(spec.x_dim, latent, key=g_key),
            decoder,
            spec.head,
            samples,
            objective,
            deterministic,
            own,
        )

    def q(self, data) -> Array:
        """Parameters of q(z | data)."""
        return self.latent.params(self.last(self.encoder.summary(data)))

    def raw(self, support: Data, x: Float[Array, "n d"], z: Array) -> Float[Array, "n r"]:
        """Raw outputs of the function z at the query points."""
        everywhere = jnp.broadcast_to(z, (x.shape[0], *z.shape))
        parts = [x, everywhere, z * apply(self.gate, x)]
        if self.deterministic:
            parts.append(self.encoder(support, x))
        raw = apply(self.decoder, jnp.concatenate(parts, axis=1))
        return raw if self.by_class is None else raw + self.by_class(support, x)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        n = jnp.maximum(task.query.count, 1)
        prior = self.q(task.support)
        posterior = prior if self.objective == "ml" else self.q(task.union)

        def each(k):
            """-log p(query | z) and log q(z | support ∪ query) - log q(z | support) of a draw."""
            z_key, head_key = jr.split(k)
            z = self.latent.sample(posterior, key=z_key)
            raw = self.raw(task.support, task.query.x, z)
            nll = n * self.head.risk(raw, task.query, key=head_key)
            return nll, self.latent.log_prob(posterior, z) - self.latent.log_prob(prior, z)

        nll, gap = jax.vmap(each)(jr.split(key, self.samples))
        if self.objective == "elbo":
            return (nll + gap).mean() / n
        if not self.head.density:  # a score, of which there is no probability to average
            return nll.mean() / n
        return (jnp.log(1.0 * self.samples) - jax.nn.logsumexp(-nll)) / n

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        return Sampled(eqx.Partial(_draw, self, support, self.q(support)), _raw, self.head)

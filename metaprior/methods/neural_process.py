"""Neural processes: a latent variable a task, with amortised variational inference."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from metaprior.infer.gaussian import Diagonal
from metaprior.method import AbstractMethod
from metaprior.nets.mlp import apply, mlp
from metaprior.nets.sets import DeepSet
from metaprior.posterior import AbstractHead, Sampled


def _raw(w, x):
    decoder, z = w
    return apply(decoder, jnp.concatenate([x, jnp.broadcast_to(z, (x.shape[0], z.shape[0]))], axis=1))


def _draw(decoder, q, key):
    return decoder, q.sample(key=key)


class NP(AbstractMethod):
    """Garnelo et al., "Neural Processes", ICML 2018 workshop on deep generative models.

    The task parameter is a vector z. The objective is the negative of equation 9, a bound on the log
    density of the query given the support, divided by the number of query rows:
    E_{z ~ q(z | support ∪ query)} nll(query | z) + KL(q(z | support ∪ query) ‖ q(z | support)).

    Args:
        encoder: of a set of observations.
        last: from its summary to mean and raw scale of q(z | set).
        decoder: from x and z to raw outputs.
        head: what is predicted.
        samples: draws of z for the expectation in training.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> np = metaprior.methods.NP.init(metaprior.Spec(1, Gaussian(1)), key=jax.random.key(0))
        >>> posterior = np.posterior(metaprior.Data.of([0.0, 1.0], [2.0, 3.0]), key=jax.random.key(1))
        >>> posterior.predict(jax.numpy.zeros((4, 1)), key=jax.random.key(2), samples=10).mean().shape
        (4, 1)
    """

    encoder: DeepSet
    last: eqx.nn.Linear
    decoder: eqx.nn.MLP
    head: AbstractHead
    samples: int = eqx.field(static=True)

    @classmethod
    def init(cls, spec, *, key, width=128, depth=2, latent=32, samples=1):
        """Encoder and decoder of equal size.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units and layers of each part.
            latent: numbers in z.
            samples: draws of z a task in training, at least 1.
        """
        if samples < 1:
            raise ValueError(f"NP needs at least 1 draw of z a task; got samples={samples}.")
        e_key, l_key, d_key = jr.split(key, 3)
        encoder = DeepSet.init(spec, width=width, depth=depth, key=e_key)
        decoder = mlp(spec.x_dim + latent, spec.head.raw_dim, width, depth, key=d_key)
        return cls(encoder, eqx.nn.Linear(width, 2 * latent, key=l_key), decoder, spec.head, samples)

    def q(self, data) -> Diagonal:
        """q(z | data), its standard deviations between 0.1 and 1 (the attentive neural process's range)."""
        mean, raw = jnp.split(self.last(jax.nn.relu(self.encoder.summary(data))), 2)
        return Diagonal(mean, jnp.log(0.1 + 0.9 * jax.nn.sigmoid(raw)))

    def loss(self, task, *, key):
        prior, posterior = self.q(task.support), self.q(task.union)

        def nll(k):
            z_key, head_key = jr.split(k)
            raw = _raw(_draw(self.decoder, posterior, z_key), task.query.x)
            return self.head.risk(raw, task.query, key=head_key)

        kl = posterior.kl(prior) / jnp.maximum(task.query.count, 1)
        return jax.vmap(nll)(jr.split(key, self.samples)).mean() + kl

    def posterior(self, support, *, key):
        return Sampled(eqx.Partial(_draw, self.decoder, self.q(support)), _raw, self.head)

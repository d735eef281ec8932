"""Black-box meta-learning with a recurrent network."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.mlp import apply, mlp
from metaprior.nets.sets import columns, rows
from metaprior.posterior import Particles
from metaprior.task import Data, Task


def _raw(w, x):
    decoder, state = w
    everywhere = jnp.broadcast_to(state, (x.shape[0], *state.shape))
    return apply(decoder, jnp.concatenate([x, everywhere], axis=1))


class Recurrent(AbstractMethod):
    """Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks", ICML 2016.

    This is the LSTM of the paper's section 4. It reads the rows of the support one after another
    (Hochreiter & Schmidhuber, "Long Short-Term Memory", 1997; Hochreiter, Younger & Conwell,
    "Learning to Learn Using Gradient Descent", 2001). Its state after the last row is the task
    parameter, and the objective is the mean nll of the query rows given that state.

    The paper feeds y one step late, so that every row is a query too. Here a row and its outcome
    come together, and query points are read from the final state, all at once. The answer depends
    on the order of the rows. There is one function, and what it does not know is noise.

    Args:
        each: network of one row.
        cell: of the LSTM.
        start: state before the first row, `(2, width)`.
        decoder: from x and the state to raw outputs.
        head: what is predicted.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> recurrent = metaprior.methods.Recurrent.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = recurrent.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    each: eqx.nn.MLP
    cell: eqx.nn.LSTMCell
    start: Float[Array, "2 w"]
    decoder: eqx.nn.MLP
    head: AbstractHead

    @classmethod
    def init(cls, spec: Spec, *, key: PRNGKeyArray, width: int = 128, depth: int = 2) -> Self:
        """One LSTM layer between two fully connected networks.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width: units of the LSTM and of every hidden layer (200 in the paper; as CNP's, to be
                compared with it).
            depth: hidden layers of the decoder; the network of one row has one.
        """
        keys = jr.split(key, 4)
        each = mlp(columns(spec), width, width, 1, key=keys[0])
        start = 0.1 * jr.normal(keys[2], (2, width))
        decoder = mlp(spec.x_dim + 2 * width, spec.head.raw_dim, width, depth, key=keys[3])
        return cls(each, eqx.nn.LSTMCell(width, width, key=keys[1]), start, decoder, spec.head)

    def state(self, support: Data) -> Float[Array, "s"]:
        """Hidden and cell state after the rows inside the mask, `(2 width,)`."""

        def read(state, row):
            h, exists = row
            new = jnp.stack(self.cell(h, (state[0], state[1])))
            # Padding leaves the state as it was.
            return jnp.where(exists, new, state), None

        h = apply(self.each, rows(support, self.head.classes))
        return jax.lax.scan(read, self.start, (h, support.mask))[0].reshape(-1)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        raw = _raw((self.decoder, self.state(task.support)), task.query.x)
        return self.head.risk(raw, task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single((self.decoder, self.state(support)), _raw, self.head)

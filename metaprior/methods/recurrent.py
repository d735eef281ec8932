"""Black-box meta-learning with a recurrent network."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead, Categorical, Gaussian
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.mlp import apply, mlp, zero_last
from metaprior.nets.sets import columns, memberships, rows
from metaprior.posterior import Particles
from metaprior.task import Data, Task


def _read(decoder, state, x):
    everywhere = jnp.broadcast_to(state, (x.shape[0], *state.shape))
    return apply(decoder, jnp.concatenate([x, everywhere], axis=1))


def _raw(w, x):
    decoder, state, one, states = w
    raw = _read(decoder, state, x)
    if one is None:
        return raw
    return raw + jax.vmap(lambda own: _read(one, own, x)[:, 0], out_axes=1)(states)


class Recurrent(AbstractMethod):
    """Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks", ICML 2016.

    This is the LSTM of the paper's section 4. It reads the rows of the support one after another
    (Hochreiter & Schmidhuber, "Long Short-Term Memory", 1997; Hochreiter, Younger & Conwell,
    "Learning to Learn Using Gradient Descent", 2001). Its state after the last row is the task
    parameter, and the objective is the mean nll of the query rows given that state.

    The paper feeds y one step late, so that every row is a query too. Here a row and its outcome
    come together, and query points are read from the final state, all at once. The answer depends
    on the order of the rows. There is one function, and what it does not know is noise.

    For classes a second LSTM reads each class's own rows, and its state gives the class's logit.
    What it learns of one class serves all. At first those logits are the prediction, as the first
    decoder's last layer is zero. It learns what the classes' numbers mean, where they mean
    something.

    Args:
        each: network of one row.
        cell: of the LSTM.
        start: state before the first row, `(2, width)`.
        decoder: from x and the state to raw outputs.
        head: what is predicted.
        by_class: reads the rows of one class; `None` for none.

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
    by_class: "Recurrent | None" = None

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
        cell, own = eqx.nn.LSTMCell(width, width, key=keys[1]), None
        if isinstance(spec.head, Categorical):
            decoder, number = zero_last(decoder), Spec(spec.x_dim, Gaussian(1, scale=1.0))
            own = cls.init(number, width=width, depth=depth, key=jr.fold_in(key, 1))
        return cls(each, cell, start, decoder, spec.head, own)

    def state(self, support: Data) -> Float[Array, "s"]:
        """Hidden and cell state after the rows inside the mask, `(2 width,)`."""

        def read(state, row):
            h, exists = row
            new = jnp.stack(self.cell(h, (state[0], state[1])))
            # Padding leaves the state as it was.
            return jnp.where(exists, new, state), None

        h = apply(self.each, rows(support, self.head.classes))
        return jax.lax.scan(read, self.start, (h, support.mask))[0].reshape(-1)

    def read(self, support: Data) -> Any:
        """Decoders and the states that they read: what `_raw` takes."""
        one = self.by_class
        if one is None:
            return self.decoder, self.state(support), None, None

        def of_class(own):
            return one.state(Data(support.x, own[:, None], own > 0))

        states = jax.vmap(of_class)(memberships(support, self.head.classes).T)
        return self.decoder, self.state(support), one.decoder, states

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return self.head.risk(_raw(self.read(task.support), task.query.x), task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single(self.read(support), _raw, self.head)

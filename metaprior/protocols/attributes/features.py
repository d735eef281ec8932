"""features of attributes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from metaprior.nets.conv import Conv4
from metaprior.protocols.attributes.data import Faces
from metaprior.training import adam

FEATURES, FILTERS = 32, 16


class Namer(eqx.Module):
    """A convolutional network whose last hidden layer says which attributes an image has."""

    body: Conv4
    last: eqx.nn.Linear

    def __call__(self, row):
        return self.last(jax.nn.relu(self.body(row)))


def features(data: Faces, seed: int, steps: int, batch: int = 64) -> np.ndarray:
    """`FEATURES` numbers an image, standardised on the training images, of which alone the network
    is made.
    """
    if (seed, steps) in data.features:
        return data.features[seed, steps]
    n, size, _, channels = data.pixels.shape
    keys = jr.split(jr.key(seed), 3)
    body = Conv4.init(
        FEATURES, size=size, channels=channels, filters=FILTERS, pooled=False, key=keys[0]
    )
    net = Namer(body, eqx.nn.Linear(FEATURES, data.values.shape[1], key=keys[1]))
    arrays, rest = eqx.partition(net, eqx.is_inexact_array)
    optimiser = adam(3e-3, steps)
    images, values = (
        jnp.asarray(data.pixels[data.train]),
        jnp.asarray(data.values[data.train], float),
    )

    @jax.jit
    def train(arrays, state, key):
        def step(i, carry):
            arrays, state = carry
            rows = jr.randint(jr.fold_in(key, i), (batch,), 0, len(images))
            x = images[rows].reshape(batch, -1).astype(float) / 255.0

            def loss(arrays):
                raw = jax.vmap(eqx.combine(arrays, rest))(x)
                return optax.sigmoid_binary_cross_entropy(raw, values[rows]).mean()

            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimiser.update(jax.grad(loss)(arrays), state, arrays)
            return optax.apply_updates(arrays, updates), state

        return jax.lax.fori_loop(0, steps, step, (arrays, state))[0]

    net = eqx.combine(train(arrays, optimiser.init(arrays), keys[2]), rest)
    look = eqx.filter_jit(lambda body, x: jax.vmap(body)(x.astype(float) / 255.0))
    flat = data.pixels.reshape(n, -1)
    pad = np.concatenate([flat, flat[: -n % 100]])
    found = np.concatenate(
        [np.asarray(look(net.body, jnp.asarray(part))) for part in np.split(pad, len(pad) // 100)]
    )
    found = found[:n]
    own = found[data.train]
    data.features[seed, steps] = ((found - own.mean(0)) / (own.std(0) + 1e-6)).astype(np.float32)
    return data.features[seed, steps]

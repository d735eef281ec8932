"""Features of images that all methods of a seed share."""

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
AT_ONCE = 100  # images in one call of the network


class Namer(eqx.Module):
    """A convolutional network whose last hidden layer says which attributes an image has."""

    body: Conv4
    last: eqx.nn.Linear

    def __call__(self, row):
        return self.last(jax.nn.relu(self.body(row)))


def features(data: Faces, seed: int, steps: int, batch: int = 64) -> np.ndarray:
    """`FEATURES` numbers an image, standardised on the training images, `(n, FEATURES)`.

    The network that gives them is trained on the training images alone.
    """
    if (seed, steps) not in data.features:
        net = named(data, seed, steps, batch)
        found = looked_at(net.body, data.pixels)
        own = found[data.train]
        scaled = (found - own.mean(0)) / (own.std(0) + 1e-6)
        data.features[seed, steps] = scaled.astype(np.float32)
    return data.features[seed, steps]


def named(data: Faces, seed: int, steps: int, batch: int) -> Namer:
    """A network trained to name the attributes of the training images."""
    _, size, _, channels = data.pixels.shape
    keys = jr.split(jr.key(seed), 3)
    body = Conv4.init(
        FEATURES, size=size, channels=channels, filters=FILTERS, pooled=False, key=keys[0]
    )
    net = Namer(body, eqx.nn.Linear(FEATURES, data.values.shape[1], key=keys[1]))
    arrays, rest = eqx.partition(net, eqx.is_inexact_array)
    optimiser = adam(3e-3, steps)
    images = jnp.asarray(data.pixels[data.train])
    values = jnp.asarray(data.values[data.train], float)

    @jax.jit
    def train(arrays, state, key):
        def step(i, carry):
            arrays, state = carry
            rows = jr.randint(jr.fold_in(key, i), (batch,), 0, len(images))
            x = images[rows].reshape(batch, -1).astype(float) / 255.0

            def loss(arrays):
                raw = jax.vmap(eqx.combine(arrays, rest))(x)
                return optax.sigmoid_binary_cross_entropy(raw, values[rows]).mean()

            # optax mixes dtypes
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimiser.update(jax.grad(loss)(arrays), state, arrays)
            return optax.apply_updates(arrays, updates), state

        return jax.lax.fori_loop(0, steps, step, (arrays, state))[0]

    return eqx.combine(train(arrays, optimiser.init(arrays), keys[2]), rest)


def looked_at(body: Conv4, pixels: np.ndarray) -> np.ndarray:
    """What the network gives for every image, some at a time."""

    @eqx.filter_jit
    def look(body, x):
        return jax.vmap(body)(x.astype(float) / 255.0)

    flat = pixels.reshape(len(pixels), -1)
    whole = np.concatenate([flat, flat[: -len(flat) % AT_ONCE]])  # filled up, so one shape compiles
    parts = np.split(whole, len(whole) // AT_ONCE)
    found = np.concatenate([np.asarray(look(body, jnp.asarray(part))) for part in parts])
    return found[: len(flat)]

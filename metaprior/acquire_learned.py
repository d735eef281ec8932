"""Learning active learning: what an observation is worth, regressed on what is known before it.

Konyushkova, Sznitman & Fua, "Learning Active Learning from Data", NeurIPS 2017. On tasks whose
outcomes are known, some rows are observed, and each of a few others in turn. How much that lowers
the loss on further rows is the target of a regression; what the posterior says of the row before it
is observed are its features. On a new task the row with the largest expected drop is next.

Here are the features and the drops, of one task. Who regresses one on the other is free.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture
from metaprior.task import Data, pad, shuffled

SAMPLES = 256  # functions of a method that predicts by sampling
FAR = 20.0  # distance to the nearest observed row where there is none

# Of a row that could be observed, and of what is known so far.
FEATURES = (
    "observed",  # number of observed rows
    "entropy",  # of the predictive, nats
    "bald",  # information about the function, nats
    "variance",  # the part of the variance that observations can remove
    "mean_entropy",  # over the candidates
    "mean_variance",
    "nearest",  # distance to the nearest observed row, over the candidates' root mean square
    "remote",  # distance to the candidates' mean, alike
    "offset",  # how far the expected outcome is from its mean over the candidates
    "sure",  # probability of the most likely class; of numbers the standard deviation
    "balance",  # share of the rarest class, or standard deviation, among observed outcomes
)


def features(
    mixture: Mixture, x: Float[Array, "n d"], real: Bool[Array, "n"], seen: Data
) -> Float[Array, "n f"]:
    """`FEATURES` of each candidate row.

    Args:
        mixture: what is predicted at the candidates, given the observed rows.
        x: the candidates.
        real: which of them are no padding.
        seen: the observed rows.

    Example:
        >>> import jax, jax.numpy as jnp, metaprior
        >>> from metaprior import acquire_learned
        >>> seen = metaprior.Data.of([-1.0, 1.0], [0.3, -0.2])
        >>> posterior = metaprior.sources.GP().exact(seen)
        >>> x = jnp.linspace(-2, 2, 41)[:, None]
        >>> said = posterior.predict(x, key=jax.random.key(0), samples=1)
        >>> acquire_learned.features(said, x, jnp.ones(41, bool), seen).shape
        (41, 11)
    """
    pool = Data(x, jnp.zeros((len(x), 1)), real)
    variance, mean = mixture.epistemic().sum(-1), mixture.mean()
    entropy, information = mixture.entropy(), mixture.information()

    middle = jax.vmap(pool.mean, in_axes=1)(x)
    remote = jnp.sqrt(((x - middle) ** 2).sum(-1))
    scale = jnp.sqrt(pool.mean(remote**2)) + 1e-6  # distances are in these
    nearest = jnp.where(seen.mask, _distance(x, seen.x), jnp.inf).min(1, initial=jnp.inf) / scale

    offset = jnp.abs(mean - jax.vmap(pool.mean, in_axes=1)(mean)).sum(-1)
    if classes := mixture.parts[0].head.classes:
        sure = mean.max(-1)
        shares = jax.nn.one_hot(seen.y[:, 0].astype(int), classes)
        balance = jax.vmap(seen.mean, in_axes=1)(shares).min()
    else:
        sure = jnp.sqrt(mixture.variance()[:, 0])
        balance = jnp.sqrt(seen.mean((seen.y[:, 0] - seen.mean(seen.y[:, 0])) ** 2))

    each = (
        seen.count,
        entropy,
        information,
        variance,
        pool.mean(entropy),
        pool.mean(variance),
        jnp.minimum(nearest, FAR),
        remote / scale,
        offset,
        sure,
        balance,
    )
    return jnp.stack([jnp.broadcast_to(a, len(x)).astype(x.dtype) for a in each], axis=1)


def _distance(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    square = (a**2).sum(-1)[:, None] + (b**2).sum(-1) - 2 * a @ b.T
    return jnp.sqrt(jnp.maximum(square, 0.0))


def losses(mixture: Mixture, y: Float[Array, "n 1"], by: str) -> Float[Array, "n"]:
    """Of each row: `"nll"`, the negative log density of its outcome in nats; or `"error"`, whether
    the most likely class is wrong, or the squared error of the mean.
    """
    if by == "nll":
        return -mixture.log_prob(y)
    mean = mixture.mean()
    if mixture.parts[0].head.classes:
        return (mean.argmax(-1) != y[:, 0]).astype(mean.dtype)
    return ((mean - y) ** 2).sum(-1)


def parted(pool: Data, room: int, *, key: PRNGKeyArray) -> tuple[Data, Data]:
    """Some random rows of a pool as observed, the others as candidates, of which one is left.

    Args:
        pool: outcomes included.
        room: places for observed rows. Between 0 and one less are taken, any number as likely.
        key: of the draws.
    """
    order_key, key = jr.split(key)
    taken = jr.randint(key, (), 0, jnp.clip(pool.count, 1, room))
    return cut(pool, shuffled(order_key, pool.mask), taken, room)


def cut(pool: Data, order: Int[Array, "n"], taken: Int[Array, ""], room: int) -> tuple[Data, Data]:
    """The first rows of a pool in some order as observed, with `room` places, and the others."""
    pool = Data(pool.x[order], pool.y[order], pool.mask[order])
    seen = jax.tree.map(lambda a: a[:room], pad(pool, max(room, len(order))).first(taken))
    return seen, Data(pool.x, pool.y, pool.mask & (jnp.arange(len(order)) >= taken))


def looked(
    learner: AbstractLearner,
    seen: Data,
    pool: Data,
    query: Data,
    *,
    key: PRNGKeyArray,
    few: int,
    by: str = "nll",
) -> tuple[Float[Array, "m f"], Float[Array, "m"], Bool[Array, "m"]]:
    """Some random candidates: their features, and how much each outcome lowers the loss.

    Args:
        learner: whose loss it is.
        seen: the observed rows, with room for one more at the end of those in the mask.
        pool: the candidates and their outcomes.
        query: the rows that the loss is of.
        key: of draws, the same before and after, so that their noise cancels.
        few: how many candidates.
        by: see `losses`.

    Returns:
        features, drops, and which candidates there are: a pool may have fewer.
    """
    post_key, key, pick_key = jr.split(key, 3)

    def judged(seen):
        posterior = learner.posterior(seen, key=post_key)
        said = posterior.predict(query.x, key=key, samples=SAMPLES)
        return query.mean(losses(said, query.y, by))

    posterior = learner.posterior(seen, key=post_key)
    mixture = posterior.predict(pool.x, key=key, samples=SAMPLES)
    described = features(mixture, pool.x, pool.mask, seen)
    rows = shuffled(pick_key, pool.mask)[:few]
    with_one = jax.vmap(lambda row: seen.put(seen.count, pool.x[row], pool.y[row]))(rows)
    # None more, and one more: one program.
    all_seen = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), seen, with_one)
    each = jax.vmap(judged)(all_seen)
    return described[rows], each[0] - each[1:], pool.mask[rows]

"""Images whose positives share three attributes, of which an unnamed pair is meant."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metaprior.errors import InputError
from metaprior.task import Data, Task

# Pairs of the three attributes: the concepts that a support set leaves open.
PAIRS = ((0, 1), (0, 2), (1, 2))


class Triples(eqx.Module):
    """Signed triples of attributes: positives have value `signs` in the columns `columns`.

    Args:
        columns: three attributes, ascending; `(t, 3)`.
        signs: whether a positive has the attribute or lacks it; `(t, 3)`.
    """

    columns: Int[np.ndarray, "t 3"]
    signs: Bool[np.ndarray, "t 3"]

    def __len__(self):
        return len(self.columns)

    def __iter__(self):
        """Columns and signs of each, as tuples."""
        return zip(map(tuple, self.columns.tolist()), map(tuple, self.signs.tolist()))

    def take(self, rows) -> "Triples":
        """Some of the triples: their places, or one bool a triple."""
        chosen = np.asarray(rows)
        rows = (
            chosen if chosen.dtype == bool else chosen.astype(int)
        )  # an empty list is one of floats
        return Triples(self.columns[rows], self.signs[rows])


def triples(values: Bool[np.ndarray, "n a"], shots: int, query: int) -> Triples:
    """Every signed triple for which `values` hold enough images.

    A support set needs `shots` images with all three attributes and `shots` with none. The query of
    each pair needs `query` more images that have the pair, and `query` more that lack one of it or
    both.

    Args:
        values: attributes of the images.
        shots: positives of a support set, and negatives.
        query: positives of a query set, and negatives.

    Example:
        >>> import itertools, numpy as np
        >>> from metaprior.sources.attributes import triples
        >>> values = np.array(list(itertools.product([False, True], repeat=3)) * 9)
        >>> len(triples(values, 5, 5)), len(triples(values, 10, 5))
        (8, 0)
    """
    columns, signs = [], []
    for three in itertools.combinations(range(values.shape[1]), 3):
        # How many images have each of the eight combinations of the three attributes.
        cells = np.bincount(values[:, three] @ np.array([4, 2, 1]), minlength=8).reshape(2, 2, 2)
        for sign in itertools.product((0, 1), repeat=3):
            signed = np.flip(cells, tuple(axis for axis in range(3) if not sign[axis]))
            if _enough(signed, shots, query):
                columns.append(three)
                signs.append(sign)
    return Triples(np.array(columns, np.int32).reshape(-1, 3), np.array(signs, bool).reshape(-1, 3))


def _enough(cells: np.ndarray, shots: int, query: int) -> bool:
    """Whether a triple has enough images, given how many of them have each combination.

    `cells[1, 1, 1]` counts the images that have all three signed attributes, `cells[0, 0, 0]` the
    images that have none.
    """
    if cells[1, 1, 1] < shots or cells[0, 0, 0] < shots:
        return False
    have = [cells[1, 1].sum(), cells[1, :, 1].sum(), cells[:, 1, 1].sum()]  # each pair
    fewest = min(min(have), cells.sum() - max(have))
    return fewest >= shots + query


def split_triples(every: Triples, most: int, seed: int) -> tuple[Triples, Triples, Triples] | None:
    """Triples for training (5 in 8), validation (1 in 8) and test (2 in 8), at random.

    A triple and the one of opposite signs ask the same with positives and negatives exchanged: they
    stay together.

    Args:
        every: the triples to split.
        most: how many to keep at most, at random.
        seed: of the choice.

    Returns:
        the three parts, or `None` where there are too few triples.
    """
    twins: dict[tuple, list[int]] = {}
    for i, (columns, signs) in enumerate(every):
        positive = signs if signs[0] else tuple(not sign for sign in signs)
        twins.setdefault((columns, positive), []).append(i)
    groups = list(twins.values())
    if len(groups) < 3:
        return None

    order = np.random.default_rng(seed).permutation(len(groups))[: max(3, most // 2)]
    test, validation = max(1, len(order) // 4), max(1, len(order) // 8)

    def part(places):
        return every.take(sorted(i for place in places for i in groups[place]))

    judged, check = part(order[:test]), part(order[test : test + validation])
    return part(order[test + validation :]), check, judged


class Episode(eqx.Module):
    """One support set, and a query set for each pair of its three attributes.

    Args:
        support: images and whether they are positives.
        query: images and labels under each pair; every array has a leading axis of `PAIRS`.
        held: of every query image, which of the three signed attributes it has; `(3, n, 3)`.
        triple: row of `Triples`.
        shown, asked: which images they are; `(2 shots,)` and `(3, n)`.
    """

    support: Data
    query: Data
    held: Bool[Array, "3 n 3"]
    triple: Int[Array, ""]
    shown: Int[Array, "m"]
    asked: Int[Array, "3 n"]


class SharedAttributes(eqx.Module):
    """Ambiguous faces: which two of three attributes are meant?

    Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018, section 6. The
    support shows `shots` positives, which have all three attributes of a signed triple, and as many
    negatives, which have none. The concept is a pair of the three: in the query set, positives have
    both attributes of the pair, whatever the third is, and negatives lack one of them or both. Both
    halves are drawn evenly from all such images that the support does not hold. So a query set is
    balanced, and no image is in it twice.

    As a source, a task's concept is one of the three pairs, each as likely.

    Args:
        images: as rows, `(n, d)`: bytes, which a task divides by 255, or features.
        values: their attributes; `(n, a)`.
        columns, signs: of the triples, as in `Triples`; each is as likely.
        shots: positives of a support set, and negatives (5 in the paper).
        query: positives of a query set, and negatives.

    Example:
        >>> import itertools, jax, numpy as np
        >>> from metaprior.sources.attributes import SharedAttributes, triples
        >>> values = np.array(list(itertools.product([False, True], repeat=3)) * 9)
        >>> images = np.zeros((72, 4), np.uint8)
        >>> source = SharedAttributes.of(images, values, triples(values, 5, 5), 5, 5)
        >>> task = source(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((10, 4), (10, 1))
    """

    images: Array
    values: Array
    columns: Array
    signs: Array
    shots: int = eqx.field(static=True)
    query: int = eqx.field(static=True)

    @staticmethod
    def of(images, values, chosen: Triples, shots: int = 5, query: int = 10) -> "SharedAttributes":
        """From images `(n, …)`, bytes or features, and their attributes `(n, a)`."""
        if not len(chosen):
            raise InputError(
                f"attributes: no three of the {values.shape[1]} attributes have enough images for "
                f"{shots} positives and {shots} negatives to show and {query} of each to ask; "
                "give more images or attributes."
            )
        flat = jnp.asarray(np.asarray(images).reshape(len(images), -1))
        columns, signs = jnp.asarray(chosen.columns), jnp.asarray(chosen.signs)
        return SharedAttributes(flat, jnp.asarray(values, bool), columns, signs, shots, query)

    def _rows(self, index, positive) -> Data:
        """Images by their places, and whether they are positives."""
        x = self.images[index]
        x = x.astype(float) / 255.0 if x.dtype == jnp.uint8 else x
        return Data(x, positive.astype(x.dtype)[:, None], jnp.ones(len(index), bool))

    def _show(self, key):
        """The support, and what the query needs to know of it.

        Returns:
            the triple, which of its attributes each image has, the support, and the support's
            images as a mask and as places.
        """
        which_key, yes_key, no_key = jr.split(key, 3)
        t = jr.randint(which_key, (), 0, self.columns.shape[0])
        held = self.values[:, self.columns[t]] == self.signs[t]
        yes = some(held.all(1), self.shots, yes_key)
        no = some(~held.any(1), self.shots, no_key)
        taken = jnp.zeros(held.shape[0], bool).at[yes].set(True).at[no].set(True)
        shown = jnp.concatenate([yes, no])
        return t, held, self._rows(shown, jnp.arange(2 * self.shots) < self.shots), taken, shown

    def _ask(self, held, taken, pair, key):
        """The query of a pair, and the places of its images."""
        yes_key, no_key = jr.split(key)
        both = held[:, pair].all(1)
        yes = some(both & ~taken, self.query, yes_key)
        no = some(~both & ~taken, self.query, no_key)
        index = jnp.concatenate([yes, no])
        return self._rows(index, jnp.arange(2 * self.query) < self.query), index

    def __call__(self, key) -> Task:
        show_key, pair_key, ask_key = jr.split(key, 3)
        _, held, support, taken, _ = self._show(show_key)
        pair = jnp.asarray(PAIRS)[jr.randint(pair_key, (), 0, len(PAIRS))]
        return Task(support, self._ask(held, taken, pair, ask_key)[0])

    def episode(self, key) -> Episode:
        """One support set with the query sets of all three pairs."""
        show_key, ask_key = jr.split(key)
        t, held, support, taken, shown = self._show(show_key)

        def ask(pair, k):
            return self._ask(held, taken, pair, k)

        query, asked = jax.vmap(ask)(jnp.asarray(PAIRS), jr.split(ask_key, len(PAIRS)))
        return Episode(support, query, held[asked], t, shown, asked)


def some(mask: Bool[Array, "n"], count: int, key) -> Int[Array, "c"]:
    """`count` different places where `mask` is true, evenly drawn.

    There must be as many. The largest of random numbers stand at random places, so that the shape
    does not depend on the mask.
    """
    u: Float[Array, "n"] = jr.uniform(key, mask.shape)
    return jax.lax.top_k(jnp.where(mask, u, -1.0), count)[1]

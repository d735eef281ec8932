"""Many groups at once: groups of like size go through one compiled program together.

A program takes a fixed number of groups: memory is bounded, and another number of groups compiles
nothing anew. Rows are found by their numbers in the table, so that no step is a loop over groups.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from metaprior.system.devices import usable_cores
from metaprior.tables.padding import bucket
from metaprior.tables.questions import predict_groups
from metaprior.task import Data

MOST_ASKED = 256  # rows of a group in one program; further rows are a task of their own
MOST_GROUPS = 64  # in one program
ENTRIES = MOST_GROUPS * 16**2  # of the covariances of all groups in one program
COMPILING = 0.3  # share of the work, for the guess at the time left

Tell = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Runs:
    """Row numbers of each group together: those of group `g` are `order[start[g]:][:count[g]]`."""

    order: np.ndarray
    start: np.ndarray
    count: np.ndarray

    @staticmethod
    def of(group: np.ndarray, use: np.ndarray, groups: int) -> "Runs":
        """The rows in `use`, a mask, in the order of the table."""
        rows = np.flatnonzero(use)
        count = np.bincount(group[rows], minlength=groups)
        order = rows[np.argsort(group[rows], kind="stable")]
        return Runs(order, np.cumsum(count) - count, count)

    def rows(self, groups: np.ndarray, begin: np.ndarray, size: int) -> "Block":
        """Up to `size` rows of each of some groups, from its row `begin` on."""
        left = np.clip(self.count[groups] - begin, 0, size)
        real = np.arange(size) < left[:, None]
        at = np.where(real, (self.start[groups] + begin)[:, None] + np.arange(size), 0)
        return Block(self.order[at] if len(self.order) else at, real)


@dataclasses.dataclass(frozen=True)
class Block:
    """Row numbers of some groups, `(g, n)`, and which of them are real."""

    rows: np.ndarray
    real: np.ndarray

    def padded(self, groups: int) -> "Block":
        """With groups of no rows up to so many."""
        more = [(0, groups - len(self.rows)), (0, 0)]
        return Block(np.pad(self.rows, more), np.pad(self.real, more))

    def of(self, values: np.ndarray) -> np.ndarray:
        """The rows' values, zeros where a row is not real."""
        zero = np.zeros((), values.dtype)
        return np.where(self.real[..., None], values[self.rows], zero)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Groups for one program.

    Args:
        groups: their numbers; the blocks may have more.
        known, asked: their observed rows, and those to predict.
    """

    groups: np.ndarray
    known: Block
    asked: Block

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the program that it goes through."""
        return (*self.known.rows.shape, self.asked.rows.shape[1])


def batches(known: Runs, asked: Runs, most: int = MOST_GROUPS * MOST_ASKED) -> list[Batch]:
    """All groups that have a row to predict, groups of like size together.

    Args:
        known, asked: the observed rows, and those to predict.
        most: rows to predict in one program, about.
    """
    pieces = -(-asked.count // MOST_ASKED)
    groups = np.repeat(np.arange(len(pieces)), pieces)
    begin = np.arange(len(groups)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = MOST_ASKED * begin
    length = np.minimum(asked.count[groups] - begin, MOST_ASKED)

    found = []
    for pick, observed, size in _alike(_buckets(known.count[groups]), _buckets(length)):
        at_once = min(_groups_at_once(observed + size), max(1, most // size))
        for first in range(0, len(pick), at_once):
            some = pick[first : first + at_once]
            blocks = (
                known.rows(groups[some], np.zeros(len(some), int), observed),
                asked.rows(groups[some], begin[some], size),
            )
            found.append(Batch(groups[some], *(block.padded(at_once) for block in blocks)))
    return found


def _buckets(counts: np.ndarray) -> np.ndarray:
    """`bucket` of each number."""
    different, index = np.unique(counts, return_inverse=True)
    return np.array([bucket(int(n)) for n in different], int)[index]


def _groups_at_once(rows: int) -> int:
    """A power of two, the smaller the larger the groups are."""
    return min(MOST_GROUPS, 1 << (max(1, ENTRIES // max(rows, 1) ** 2).bit_length() - 1))


def _alike(known: np.ndarray, asked: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Which tasks go together, and the sizes that they are padded to.

    Sizes that few tasks have go together where the largest is at most four times the smallest:
    compiling a program takes longer than to predict thousands of small groups.
    """
    sizes, index, count = np.unique(
        np.stack([known, asked], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    rare = count < MOST_GROUPS
    wide = (np.log2(sizes.max(axis=1)) // 2).astype(int)
    program = np.where(rare, -1 - wide, np.arange(len(sizes)))[index.reshape(-1)]
    for one in np.unique(program):
        pick = np.flatnonzero(program == one)
        yield pick, int(known[pick].max()), int(asked[pick].max())


def run_all(
    todo: list[Batch], run: Callable[[Batch], Any], what: str, progress: Tell | None = None
) -> list[Any]:
    """`run` of every batch, as NumPy arrays.

    Args:
        todo: of `batches`.
        run: gives arrays.
        what: is being done.
        progress: called with the share done.
    """

    def one(i: int) -> Any:
        return jax.tree.map(np.asarray, run(todo[i]))

    # The first of each shape compiles its program. The others go side by side: small programs use
    # one core each.
    first = list({batch.shape: i for i, batch in reversed(list(enumerate(todo)))}.values())
    rest = sorted(set(range(len(todo))) - set(first))
    found: list[Any] = [None] * len(todo)
    with ThreadPoolExecutor(usable_cores()) as pool:
        done, whole = 0.0, COMPILING if rest else 1.0
        for which, outputs in ((first, map(one, first)), (rest, pool.map(one, rest))):
            for i, output in zip(which, outputs, strict=True):
                found[i] = output
                done += whole / len(which)
                if progress is not None:
                    progress(done, what)
            whole = 1.0 - COMPILING
    return found


def scattered(todo: list[Batch], found: list[Any], rows: int) -> Any:
    """What was found of the asked rows of every batch, `(g, n, …)`, by number of the row."""

    def joined(*each: np.ndarray) -> np.ndarray:
        result = np.zeros((rows, *each[0].shape[2:]), each[0].dtype)
        for batch, value in zip(todo, each, strict=True):
            result[batch.asked.rows[batch.asked.real]] = value[batch.asked.real]
        return result

    return jax.tree.map(joined, *found)


def predict_all(
    learner: Any,
    curve: Any,
    rows: tuple[np.ndarray, np.ndarray],
    known: Runs,
    asked: Runs,
    levels: Sequence[float],
    progress: Tell | None = None,
) -> dict[str, np.ndarray]:
    """What `questions.predicted` says of the asked rows, by number of the row; zeros of others.

    Args:
        learner, curve: of the target.
        rows: x and y of all rows, as the prior encodes them.
        known, asked: which rows of the groups are observed, and which are asked about.
        levels: of quantiles.
        progress: called with the share done.
    """
    x, y = rows
    todo, at = batches(known, asked), np.asarray(levels, np.float32)

    def run(batch: Batch) -> Any:
        seen = batch.known
        support = Data(*jax.device_put((seen.of(x), seen.of(y), seen.real)))
        return predict_groups(learner, support, batch.asked.of(x), curve, at)

    return scattered(todo, run_all(todo, run, "predicting", progress), len(x))

"""What a prior says of a whole table of new groups."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.random as jr
import numpy as np
import polars as pl

from metaprior.tables.asked import check_suggest, target_of
from metaprior.tables.grouped import Table
from metaprior.tables.guarantee import need_guarantee, said_of_guarantee
from metaprior.tables.joint import JointTable
from metaprior.tables.learned import learned_rule, need_one_target
from metaprior.tables.posterior import Posterior
from metaprior.tables.read import Rows
from metaprior.tables.several import JointPosterior
from metaprior.tables.split import Split, need_one, split
from metaprior.tables.trained import Trained

Tell = Callable[[float, str], None]
Say = Callable[[str], None]
SEVERAL = "Give the whole table to `Prior.predict` or `Prior.adapt_each`."
SCORED = ("row", "score", "gain_nats")


def adapt(
    parts: Sequence[Trained], joint: dict | None, known: Rows | None
) -> Posterior | JointPosterior:
    """See `Prior.adapt`."""
    if known is not None:
        need_one(known, parts[0].info["task"], SEVERAL)
    posteriors = [_of_group(part, known) for part in parts]
    if known is not None:  # the features of the first are all but the targets
        posteriors[0].note(parts[0].remarks(known))
    return posteriors[0] if joint is None else JointPosterior(joint, posteriors)


def _of_group(trained: Trained, rows: Rows | None) -> Posterior:
    """The posterior of a group given its rows."""
    if rows is None or rows.frame.height == 0:
        if rows is not None and rows.frame.width:  # a header alone can be wrong too
            rows.need([*trained.features.names(), trained.info["target"]])
        nothing = np.zeros((0, trained.width()), np.float32), np.zeros((0, 1), np.float32)
        return Posterior(trained, *nothing)
    x, y = trained.encode(rows), trained.outcomes(rows)
    return Posterior(trained, x, y, (*rows.notes, *trained.doubts(rows, y)), rows.frame)


def predict(
    parts: Sequence[Trained],
    joint: dict | None,
    rows: Rows,
    keep: Sequence[str],
    levels: dict[str, float],
    guaranteed: float | None,
    progress: Tell | None,
    say: Say,
) -> pl.DataFrame:
    """See `Prior.predict`.

    Args:
        parts: what was learned of each target.
        joint: what was learned from what, of several targets.
        rows: the table.
        levels: of the quantiles, by name.
        keep, guaranteed, progress, say: as there.
    """
    if guaranteed is not None:
        need_guarantee(parts, guaranteed)
    found = split(rows, parts)
    found.need_asked("predict")
    label = found.label(keep)
    table = _table(parts, joint, found)
    _tell([*found.notes, *table.notes], say)
    said = table.predict(levels, progress)
    if guaranteed is not None:
        assert isinstance(table, Table)  # as `need_guarantee` found
        _tell(said_of_guarantee(parts[0], guaranteed, table.known.count), say)
        said = pl.concat([said, table.interval(guaranteed)], how="horizontal")
    return found.beside(label, said)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked of `suggest`, which explains it."""

    n: int
    by: str
    seed: int
    over_all: bool
    goal: str = "learn"
    target: str | None = None


def suggest(
    parts: Sequence[Trained],
    joint: dict | None,
    rows: Rows,
    keep: Sequence[str] | None,
    wish: Wish,
    progress: Tell | None,
    say: Say,
) -> pl.DataFrame:
    """See `Prior.suggest`; the arguments are those of `predict`, and the wish."""
    found = split(rows, parts)
    found.need_asked("suggest")
    count = np.bincount(found.group[found.asked], minlength=found.count)
    most = int(count.sum() if wish.over_all else count.max())
    targets = [part.info["target"] for part in parts]
    check_suggest(most, wish.n, wish.by, wish.seed, wish.goal)
    target_of(targets, wish.goal, wish.target)
    if wish.by == "learned":
        need_one_target(len(parts))
        _tell(learned_rule(parts[0], progress)[1], say)
    if keep is None:
        keep = [name for name in rows.frame.columns if name not in (*targets, *SCORED)]
    label, table = found.label(keep), _table(parts, joint, found)
    notes = [*found.notes, *table.notes]
    fewer = ((0 < count) & (count < wish.n)).sum()
    if fewer and not wish.over_all:
        notes.append(
            f"{rows.where}: {fewer} of {found.count} groups have fewer than {wish.n} rows without "
            "the target: all of them are given."
        )
    _tell(notes, say)

    if isinstance(table, Table) and wish.goal == "learn":
        chosen, scores, gains = _chosen(table, wish, progress)
    else:
        chosen, scores, gains = _chosen_one_by_one(table, wish, progress)
    extra = dict(zip(SCORED, (chosen + 1, scores, gains), strict=True))
    place = np.cumsum(found.asked) - 1  # of a row among those that lack the target
    return found.beside(label[place[chosen]], pl.DataFrame(extra))


def _chosen(table: Table, wish: Wish, progress: Tell | None) -> tuple[np.ndarray, ...]:
    """Rows in the order in which to observe them, group by group or over all, and their scores."""
    free, group = table.split.asked.copy(), table.split.group
    rounds: list[tuple[np.ndarray, ...]] = []
    value, gain, expected = np.zeros((3, len(free)))
    changed = None  # all groups
    for step in range(wish.n):
        tell = progress if changed is None else None
        key = jr.fold_in(jr.key(wish.seed), step)
        new = table.scores(wish.by, key, changed, tell)
        here = slice(None) if changed is None else changed[group]
        value[here], gain[here], expected[here] = (a[here] for a in new)
        pick = _best(np.where(free, value, -np.inf), group, free, wish.over_all)
        rounds.append((pick, np.full(len(pick), step), value[pick], gain[pick]))
        free[pick] = False
        table.observe(pick, expected)
        if wish.over_all:
            changed = np.arange(table.split.count) == group[pick[0]]

    rows, step, scores, gains = (np.concatenate(each) for each in zip(*rounds, strict=True))
    order = np.arange(len(rows)) if wish.over_all else np.lexsort((step, group[rows]))
    return rows[order], scores[order], gains[order]


def _best(value: np.ndarray, group: np.ndarray, free: np.ndarray, over_all: bool) -> np.ndarray:
    """The free row of the highest value, of each group or of all."""
    if over_all:
        return np.array([value.argmax()])
    rows = np.flatnonzero(free)
    rows = rows[np.lexsort((rows, -value[rows], group[rows]))]
    return rows[np.unique(group[rows], return_index=True)[1]]


def _chosen_one_by_one(
    table: Table | JointTable, wish: Wish, progress: Tell | None
) -> tuple[np.ndarray, ...]:
    """The same where each group is asked by itself: of several targets, or where an optimum is
    sought, of which whole functions may have to be drawn.
    """
    asked, posteriors = table.split.asked, table.posteriors()
    found: list[tuple[np.ndarray, ...]] = []
    for group, posterior in enumerate(posteriors):
        rows = np.flatnonzero(asked & (table.split.group == group))
        if len(rows):
            pool = Rows(table.split.rows.frame[rows], table.split.rows.where)
            few, goal, target = min(wish.n, len(rows)), wish.goal, wish.target
            said = posterior.suggest(pool, few, wish.by, wish.seed, goal=goal, target=target)
            values = (said[name].to_numpy() for name in SCORED)
            row, score, gain = values
            found.append((rows[row - 1], score, gain))
        if progress is not None:
            progress((group + 1) / len(posteriors), "scoring")
    if not wish.over_all:
        chosen = zip(*found, strict=True)
    else:
        # Of the rows that come next in each group, the best, again and again.
        chosen = zip(*(_taken(found) for _ in range(wish.n)), strict=True)
    rows, scores, gains = (np.concatenate(each) for each in chosen)
    return rows, scores, gains


def _taken(left: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """The best of the first rows, which is taken off its list."""
    best = max((i for i, (rows, *_) in enumerate(left) if len(rows)), key=lambda i: left[i][1][0])
    first, left[best] = tuple(a[:1] for a in left[best]), tuple(a[1:] for a in left[best])
    return first


def adapt_each(
    parts: Sequence[Trained], joint: dict | None, rows: Rows, say: Say
) -> dict[Any, Posterior | JointPosterior]:
    """See `Prior.adapt_each`; the other arguments are those of `predict`."""
    found = split(rows, parts)
    table = _table(parts, joint, found)
    _tell([*found.notes, *table.notes], say)
    names = [None] if found.names is None else found.names.to_list()
    return dict(zip(names, table.posteriors(), strict=True))


def _table(parts: Sequence[Trained], joint: dict | None, found: Split) -> Table | JointTable:
    return (
        Table(parts[0], found, found.known[:, 0])
        if joint is None
        else JointTable(joint, parts, found)
    )


def _tell(notes: Sequence[str], say: Say) -> None:
    for note in notes:
        say(note)

"""The front door: learn a prior from a table, adapt it to a new group, predict, suggest, save."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from metaprior.errors import InputError
from metaprior.evaluation.evaluate import Evaluation, JointEvaluation
from metaprior.system import files
from metaprior.tables import answers, judging, learn, pictures
from metaprior.tables.asked import named_levels, rule_of
from metaprior.tables.checked import Checked, check_all
from metaprior.tables.culprits import BadTasks, bad_task
from metaprior.tables.explanation import Explanation, explained
from metaprior.tables.fitting import Settings, fit_target, joint_info
from metaprior.tables.groups import Arrays, frame_of
from metaprior.tables.learned import known_rule
from metaprior.tables.meaning.kinds import Choices
from metaprior.tables.plan import Plan, scale_of
from metaprior.tables.posterior import Posterior
from metaprior.tables.read import Rows, rows_of
from metaprior.tables.several import JointPosterior
from metaprior.tables.stages import Tell, share_of
from metaprior.tables.trained import AUTO, Chain, Trained, load_trained, read_again


class Prior:
    """A prior over functions, learned from groups of rows.

    Args:
        method: `"auto"` (several learners stacked with weights that depend on the number of
            observed rows) or a name that `metaprior methods` lists, such as `"cnp"`, `"mixed"` (a
            linear mixed model) or `"boosting"`.
        target_scale: what numbers are modelled on; all figures stay in the target's own units.
            `"linear"`: as they are; `"log"`: their logarithm; `"log1p"`: the logarithm of them
            plus 1 (whole numbers) or plus a middle one (others); `"counts"`: whole numbers from 0,
            with a probability each; `"shares"`: the log odds of shares of 1 or of 100;
            `"yeo-johnson"`: skewed numbers of either sign. `"auto"`: one of the others where groups
            that a model has not seen are clearly more likely with it, which a note says.
        steps: most training steps; `None` takes the method's default.
        seed: of everything random.
        kind: `"numbers"`, `"classes"`, or `"auto"`: classes when the target is text, boolean, or
            has exactly two values.
        holdout: share of the groups to keep for `evaluate`, 0 to 0.5.
        holdout_by: column of numbers or dates; the groups with its largest values (means over their
            rows) are kept, not a random choice. Groups of one value stay together, so that the
            share is met roughly.
        split_by: column; groups that share a value of it stay on one side of every split.
        devices: train on this number of JAX's devices, or on `"all"`. On a CPU these are its cores,
            if JAX has not started before. The result differs by the order of sums only.
        part: which of the disjoint parts of that share is kept, 0 …: with `holdout=0.2` parts 0 to
            4 keep every group once.
        order: column that `evaluate` may order rows by, where it is no feature.
        skip_bad_tasks: leave groups out whose target is missing, infinite or so large that nothing
            can be learned beside it, or whose loss is not finite in training; `info["notes"]` names
            them. Otherwise they are errors.
        drop_missing_targets: leave rows out whose target is missing, instead of refusing them.
        keep_na: take NA and its like, in columns of text, classes and groups, as names; otherwise
            they are missing.
        missing: more cells that hold no value: `"-999"` in every column, `"x=-999"` in one.

    Raises:
        InputError: where an argument is out of range.

    Example:
        >>> import numpy as np, metaprior
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(-1, 1, (12, 8, 1))
        >>> y = rng.normal(size=(12, 1)) * x[..., 0] + rng.normal(size=(12, 1))
        >>> tasks = list(zip(x, y))
        >>> prior = metaprior.Prior(steps=20).fit(tasks=tasks)
        >>> prior.adapt(([[0.0], [1.0]], [0.5, 1.5])).predict([[0.5]]).columns
        ['mean', 'std', 'q05', 'q50', 'q95', 'epistemic']
    """

    def __init__(
        self,
        method: str = AUTO,
        *,
        target_scale: str = "auto",
        steps: int | None = None,
        seed: int = 0,
        kind: str = "auto",
        holdout: float = 0.0,
        holdout_by: str | None = None,
        split_by: str | None = None,
        devices: int | str = 1,
        skip_bad_tasks: bool = False,
        part: int = 0,
        order: str | None = None,
        drop_missing_targets: bool = False,
        keep_na: bool = False,
        missing: Sequence[str] = (),
    ):
        self.settings = Settings(
            method=method,
            target_scale=target_scale,
            steps=steps,
            seed=seed,
            kind=kind,
            holdout=holdout,
            holdout_by=holdout_by,
            split_by=split_by,
            devices=devices,
            skip_bad_tasks=skip_bad_tasks,
            part=part,
            order=order,
            drop_missing_targets=drop_missing_targets,
            keep_na=keep_na,
            missing=tuple(missing),
        ).checked()
        self.trained: Trained | None = None
        # Of several targets: a prior each, with the targets before it among its features.
        self.parts: tuple[Prior, ...] = ()
        self.joint: dict | None = None

    def fit(
        self,
        table: Any = None,
        *,
        task: str | None = None,
        target: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        date: Sequence[str] = (),
        ordered: Sequence[str] = (),
        tasks: Arrays | None = None,
        checkpoint: str | Path | None = None,
        progress: Tell | None = None,
        told: Callable[[list[Checked], Plan], None] | None = None,
    ) -> "Prior":
        """Learn from a table of groups, or from `tasks=[(x1, y1), …]`.

        Args:
            table: a polars, pandas or Arrow frame, a mapping of columns, or the path of a file:
                CSV, Excel, Parquet, Arrow; one row an observation.
            task: column that names the group.
            target: column to predict, or several: then p(a, b | x) = p(a | x) p(b | x, a), in the
                order given.
            features: columns to predict from; by default all others, the column of `split_by` too.
            numeric, categorical, date: columns that are numbers, names or dates, where they would
                be taken as something else. `"day:mdy"` is a date with the month first.
            ordered: the target is classes with this order: their names from the lowest to the
                highest, three or more.
            tasks: arrays instead of a table: x `(n, d)` or `(n,)` and y `(n,)` of each group.
            checkpoint: folder for intermediate results; a later call with the same data continues
                from them to the same bits.
            progress: called with the share done and what is being done.
            told: called once, when the table has been found good.

        Raises:
            InputError: names the file, column and row that cannot be used, or the groups with which
                the loss in training is not finite; in that case what was learned before is this
                prior.
        """
        begin = time.perf_counter()
        arrays = tasks is not None
        if arrays:
            table, task, target = frame_of(tasks), "task", "y"
        if table is None or task is None or target is None:
            raise InputError("fit takes a table with task= and target=, or tasks=[(x, y), …].")

        chosen = self.settings
        targets = [target] if isinstance(target, str) else list(target)
        choices = Choices(numeric, categorical, date, chosen.keep_na, chosen.missing, ordered)
        plan = chosen.plan(task, targets, features, choices)
        rows = rows_of(table, "table", plan.columns())
        folder = None if checkpoint is None else Path(checkpoint)
        skip: dict[str, str] | None = {} if chosen.skip_bad_tasks else None

        # Once, or again without the groups with which a loss was not finite.
        while True:
            checked = check_all(rows, plan, skip)
            for one in () if chosen.automatic else checked:
                learn.check_kind(chosen.method, one)
            if told is not None:
                told(checked, plan)
                told = None
            kept = folder / f"without {len(skip)}" if folder and skip else folder
            try:
                return self._learn_all(checked, kept, progress, arrays, begin)
            except BadTasks as bad:
                if skip is None:
                    raise bad_task(bad, rows.where, task, kept) from None
                skip |= {name: "its loss in training is not finite" for name in bad.groups}

    def _learn_all(
        self,
        checked: list[Checked],
        checkpoint: Path | None,
        progress: Tell | None,
        arrays: bool,
        begin: float,
    ) -> "Prior":
        """Everything after the checks."""
        if len(checked) == 1:
            self.parts, self.joint = (), None
            trained, stopped = fit_target(
                checked[0],
                self.settings,
                checkpoint=checkpoint,
                progress=progress,
                arrays=arrays,
                begin=begin,
            )
            if trained is not None:
                self.trained = trained
            if stopped is not None:
                raise stopped
            return self

        targets, parts = [one.target for one in checked], []
        for i, one in enumerate(checked):
            folder = None if checkpoint is None else checkpoint / f"target {i + 1}"
            share = share_of(progress, i, targets)
            trained, stopped = fit_target(one, self.settings, checkpoint=folder, progress=share)
            if stopped is not None:
                raise stopped
            assert trained is not None  # nothing stopped it
            trained.info.pop("seconds")
            parts.append(_prior_of(trained.info, trained))
        self.trained, self.parts = None, tuple(parts)
        self.joint = joint_info([part.info for part in parts], [one.values for one in checked])
        self.joint["seconds"] = round(time.perf_counter() - begin, 1)
        return self

    @property
    def info(self) -> dict:
        """What was learned from what: columns, groups, classes, notes, seconds."""
        return self.joint if self.joint is not None else self._ready().info

    @property
    def notes(self) -> tuple[str, ...]:
        """What was made of the table, left out, or is odd."""
        return tuple(self.info["notes"])

    def _ready(self) -> Trained:
        if self.trained is None:
            raise InputError("This prior has learned nothing yet; call fit or load.")
        return self.trained

    def _all(self) -> list[Trained]:
        """What was learned of every target."""
        return [part._ready() for part in self.parts or (self,)]

    def rows(self, table: Any, called: str, may_be_empty: bool = False) -> Rows:
        """A table as this prior reads it, which `adapt`, `predict` and `suggest` take as it is.

        Args:
            table: see `fit`.
            called: what messages call a table that is not a file.
            may_be_empty: whether a file without rows is allowed.
        """
        text = [name for trained in self._all() for name in trained.features.text()]
        if isinstance(table, Rows):
            return table
        return read_again(self.info, text, table, called, may_be_empty)

    def adapt(self, rows: Any = None) -> Posterior | JointPosterior:
        """Condition on the observed rows of a new group: none, some, or all of them.

        `notes` of the result say what may be wrong with the rows, such as other units. For rows of
        several groups there are `predict`, `suggest` and `adapt_each`.

        Args:
            rows: a table with the features and every target; `(x, y)` arrays where the prior was
                fitted on arrays; `None` for no rows.
        """
        known = None
        if rows is not None and self.info["arrays"] and isinstance(rows, tuple):
            known = Rows(frame_of([rows]), "support")
        elif rows is not None:
            known = self.rows(rows, "support")
        return answers.adapt(self._all(), self.joint, known)

    def predict(
        self,
        table: Any,
        *,
        keep: Sequence[str] = (),
        levels: Sequence[float] = (0.05, 0.5, 0.95),
        guaranteed: float | None = None,
        progress: Tell | None = None,
        say: Callable[[str], None] = warnings.warn,
    ) -> pl.DataFrame:
        """Predict the rows without the target in a table of new groups.

        Rows with the target are what was observed of their group. Each group is predicted from its
        own observed rows, as by `adapt`; groups that the prior has learned from count as new.

        Args:
            table: the column of groups, the features and the target, which is empty where it is to
                be predicted.
            keep: other columns of the table to have in the answer.
            levels: quantiles to give, each inside (0, 1) and given once.
            guaranteed: a share such as 0.9: `low` and `high` are added, of `Posterior.interval`
                with `guaranteed`.
            progress: called with the share done and what is being done.
            say: called with each note on the table, such as groups of which nothing was observed.

        Of several targets, a row may hold some: those are observed, and the later targets of the
        row are predicted given them. A target counts as observed where those before it are too.

        Returns:
            a line for each row without the target, in the order of the table: its group, the
            columns in `keep`, and those of `Posterior.predict`. Of several targets, a line for each
            row that lacks one; nothing is said of a target that the row holds.

        Example:
            >>> import numpy as np, metaprior
            >>> rng = np.random.default_rng(0)
            >>> old = {"g": np.repeat(np.arange(12), 8), "y": rng.normal(size=96)}
            >>> prior = metaprior.Prior("alpaca", steps=4).fit(old, task="g", target="y")
            >>> new = {"g": ["a", "a", "b", "b"], "y": [0.3, None, -0.5, None]}
            >>> prior.predict(new).select("g", "q50").shape
            (2, 2)
        """
        rows = self.rows(table, "table")
        named = named_levels(levels)
        return answers.predict(
            self._all(), self.joint, rows, keep, named, guaranteed, progress, say
        )

    def suggest(
        self,
        table: Any,
        n: int = 1,
        *,
        by: str | None = None,
        goal: str = "learn",
        target: str | None = None,
        over_all: bool = False,
        keep: Sequence[str] | None = None,
        seed: int = 0,
        progress: Tell | None = None,
        say: Callable[[str], None] = warnings.warn,
    ) -> pl.DataFrame:
        """Which rows without the target to observe next in a table of new groups.

        Args:
            table: see `predict`.
            n: how many rows of each group, or over all.
            by, goal: see `Posterior.suggest`.
            target: of several, the one to maximise or minimise.
            over_all: choose the best rows of all groups, not of each. To maximise or minimise: of
                each group's next rows, those that are to improve most on the group's own best.
            keep: columns of the table to have in the answer; all but targets by default.
            seed: of what is drawn, at least 0.
            progress, say: see `predict`.

        Returns:
            the chosen rows, group by group or over all, in the order in which to observe them: the
            group, the columns in `keep`, and `row` (1 is the table's first), `score` and
            `gain_nats` of `Posterior.suggest`.
        """
        wish = answers.Wish(n, rule_of(goal, by), seed, over_all, goal, target)
        rows = self.rows(table, "table")
        return answers.suggest(self._all(), self.joint, rows, keep, wish, progress, say)

    def adapt_each(self, table: Any, *, say: Callable[[str], None] = warnings.warn) -> dict:
        """Condition on the observed rows of every group of a table.

        Args:
            table: see `predict`; rows without the target are left out.
            say: called with each note on the table.

        Returns:
            what `adapt` gives for each group, by the name of the group.
        """
        return answers.adapt_each(self._all(), self.joint, self.rows(table, "table"), say)

    def evaluate(
        self,
        table: Any = None,
        *,
        shots: Sequence[int] = (0, 1, 2, 5, 10),
        seed: int = 0,
        order: str | None = None,
        progress: Tell | None = None,
    ) -> Evaluation | JointEvaluation:
        """Score the method and every baseline on groups it has not seen.

        Args:
            table: groups to use; `None` takes those that `fit` held out.
            shots: numbers of observed rows; each group with more rows than that gives one task, its
                observed rows drawn at random and at most 50 of the rest predicted.
            seed: of the draws, which are the same for every learner.
            order: column of numbers or dates, such as a time. The first rows of a group in its
                order are observed, and later ones predicted.
            progress: called with the share done and what is being done.
        """
        rows = None if table is None else self.rows(table, "table")
        return judging.evaluate_all(self._all(), self.joint, rows, shots, seed, order, progress)

    def explain(self, *, progress: Tell | None = None) -> Explanation | dict[str, Explanation]:
        """What was learned: where outcomes differ, what rows and features are worth, odd groups.

        It is read off the functions that a new group may have, at rows drawn as the features are in
        training: see `Explanation`. What is drawn is the same in every call; shares and deviations
        differ from their exact values by about 3 %.

        Args:
            progress: called with the share done and what is being done.

        Returns:
            an `Explanation`, which prints as text; of several targets one for each, by name, where
            later targets are explained given those before them.

        Raises:
            InputError: nothing is learned yet, or the prior does not hold what features are like.

        Example:
            >>> import numpy as np, metaprior
            >>> rng = np.random.default_rng(0)
            >>> old = {"g": np.repeat(np.arange(12), 8), "y": np.repeat(rng.normal(size=12), 8)}
            >>> old["y"] = old["y"] + rng.normal(size=96)
            >>> prior = metaprior.Prior("mixed").fit(old, task="g", target="y")
            >>> prior.explain().spread["part"].to_list()
            ['features', 'between groups', 'own effects of groups', 'noise']
        """
        if self.joint is None:
            return explained(self._ready(), progress)
        names = [part.info["target"] for part in self._all()]
        return {
            name: explained(part, share_of(progress, i, names))
            for i, (name, part) in enumerate(zip(names, self._all(), strict=True))
        }

    def plot(self, x: str | None = None, *, ax: Any = None, seed: int = 0) -> Any:
        """A picture of the prior along a feature: whole groups drawn from it, its 90 % band, and
        groups kept aside beside them. Where these look unlike, the prior is not one of such groups.

        Args:
            x: feature of numbers along the axis; the first by default. Others have their middle or
                commonest value in training.
            ax: Matplotlib axes to draw on; by default those of a new figure.
            seed: of what is drawn, and of which groups are shown.

        Returns:
            the Matplotlib figure.

        Raises:
            InputError: there is no feature of numbers, or the target has classes, or there are
                several targets.
        """
        if self.joint is not None:
            raise InputError("plot is of one target; this prior predicts several together.")
        return pictures.of_prior(self._ready(), x, ax, seed)

    def save(self, path: str | Path) -> None:
        """Write the prior to one file: a JSON header and arrays, no pickle."""
        if self.joint is not None:
            return files.save(path, Chain(self.joint, tuple(self._all())))
        trained = self._ready()
        files.save(path, dataclasses.replace(trained, rule=known_rule(trained)))


def load(path: str | Path) -> Prior:
    """Read a prior that `Prior.save` wrote.

    Raises:
        InputError: when the file is missing, damaged, foreign or from another version.
    """
    found = load_trained(path)
    if isinstance(found, Trained):
        return _prior_of(found.info, found)
    whole = _prior_of(found.info, None)
    whole.parts = tuple(_prior_of(part.info, part) for part in found.parts)
    whole.joint = found.info
    return whole


def _prior_of(info: dict, trained: Trained | None) -> Prior:
    """A prior of one target from what was learned, or an empty one."""
    names = ("method", "seed", "split_by")
    prior = Prior(target_scale=scale_of(info), **{name: info[name] for name in names})
    prior.trained = trained
    return prior

"""What to learn from a table, as the user asks for it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from metaprior.tables.meaning.kinds import Choices

KINDS = ("numeric", "categorical", "date")  # options that say what columns are


def scale_of(options: dict[str, Any]) -> str:
    """The target's scale; records of before say whether it was the logarithm."""
    before = "log" if options.get("log_target") else "linear"
    return options.get("target_scale", before)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to learn from a table, and how its groups are split.

    Args:
        task: the column that names the group (in the words of the lecture, the task) of a row.
        targets: the columns to predict; each is a feature of the later ones.
        features: columns to predict from; `None`: all others.
        kind: of the targets: `"numbers"`, `"classes"` or `"auto"`.
        scale: that numbers are modelled on: one of `target_scale.SCALES`.
        split_by: column; groups that share a value of it stay on one side of the split.
        holdout: share of the groups that is kept aside.
        holdout_by: column; the groups with its largest values are kept aside.
        seed: of the split.
        part: which of the disjoint parts of that size is kept aside, 0 …
        order: a column that `evaluate` orders rows by; it need not be a feature.
        choices: what the user says of the columns.
        drop: whether rows without a target are left out.
    """

    task: str
    targets: Sequence[str]
    features: Sequence[str] | None = None
    kind: str = "auto"
    scale: str = "auto"
    split_by: str | None = None
    holdout: float = 0.0
    holdout_by: str | None = None
    seed: int = 0
    part: int = 0
    order: str | None = None
    choices: Choices = Choices()
    drop: bool = False

    def kind_of(self, target: str) -> str:
        """Of one target: what the user says of it goes before what is said of all."""
        if self.choices.ordered:
            return "classes"
        return "numbers" if target in self.choices.numeric else self.kind

    @staticmethod
    def of(options: dict[str, Any], targets: Sequence[str], holdout: float) -> "Plan":
        """From the options of a command; those that a record of before lacks are as by default."""
        kinds = {name: options.get(name, ()) for name in KINDS}
        choices = Choices(
            **kinds,
            keep_na=options.get("keep_na", False),
            missing=options.get("missing", ()),
            ordered=options.get("ordered", ()),
        )
        return Plan(
            task=options["task"] or "",
            targets=targets,
            features=options["features"],
            kind=options.get("kind", "auto"),
            scale=scale_of(options),
            split_by=options["split_by"],
            holdout=holdout,
            holdout_by=options.get("holdout_by"),
            order=options.get("order"),
            choices=choices,
            drop=options.get("drop_missing_targets", False),
        )

    @property
    def beside(self) -> tuple[str | None, ...]:
        """Columns that are needed but may be no features."""
        return self.split_by, self.holdout_by, self.order

    def columns(self) -> list[str] | None:
        """All columns that are needed; `None`: all there are."""
        if self.features is None:
            return None
        more = [name for name in self.beside if name]
        return [self.task, *self.targets, *self.features, *more]

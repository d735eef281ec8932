"""Tasks with two labels, of which some shown ones are wrong."""

from typing import NamedTuple

import equinox as eqx
import jax

from metaprior.method import AbstractLearner
from metaprior.protocols.shift.data import ASKED, SHOWN
from metaprior.sources import SineLine
from metaprior.sources.exact import Known
from metaprior.sources.labelled import Labelled
from metaprior.task import Task

WRONG_LABELS = 0.05  # share of the labels shown
LABELS = "labels"


class LabelSetting(NamedTuple):
    """One kind of task with labels.

    Args:
        source: of the tasks; all rows are shown.
    """

    source: Labelled

    @property
    def exact(self) -> AbstractLearner:
        """Who knows the share of wrong labels."""
        return Known(self.source)

    @property
    def moved(self) -> float:
        """The share of wrong labels."""
        return self.source.flipped

    def tasks(self, keys) -> Task:
        """A task a key, stacked."""
        return _drawn(self.source, keys)


@eqx.filter_jit
def _drawn(source: Labelled, keys) -> Task:
    return jax.vmap(source)(keys)


def labelled(flipped: float = 0.0, fewest: int | None = None) -> Labelled:
    """Whether a sine wave or a line is positive, noise included."""
    return Labelled(SineLine(support=SHOWN, query=ASKED, fewest=fewest), flipped)


def label_settings() -> dict[str, LabelSetting]:
    """By name, the setting of training first; the same tasks but for the wrong labels."""
    return {
        LABELS: LabelSetting(labelled()),
        "wrong labels": LabelSetting(labelled(WRONG_LABELS)),
    }

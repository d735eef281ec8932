"""The table of baselines: a name, where it comes from and when to use it, as methods have them."""

from dataclasses import dataclass

from metaprior import methods
from metaprior.methods import BOTH, Row


@dataclass(frozen=True)
class Baseline:
    """One baseline; the fields are those of a `Row` of THE TABLE.

    Args:
        name: in configuration files and on the command line.
        paper: authors and year, where there are some.
        use: one line on what it is and when to use it.
        kinds: what it predicts: `"numbers"`, `"classes"` or both.
        group: its heading in listings.
    """

    name: str
    paper: str
    use: str
    kinds: tuple[str, ...] = BOTH
    group: str = "baseline"


BASELINES = {
    row.name: row
    for row in (
        Baseline(
            "marginal",
            "",
            "the control: the same prediction for every row, from all training groups",
        ),
        Baseline(
            "boosting",
            "Friedman 2001",
            "pooled gradient boosting; a group's own rows change nothing",
        ),
        Baseline(
            "observed",
            "Duan et al. 2020",
            "boosting that sees mean, spread, nearest and number of a group's observed rows, and "
            "learns where the spread is large: many groups of few rows",
            ("numbers",),
        ),
        Baseline(
            "offset",
            "Sigrist 2022",
            "boosting plus one number for each group, shrunk: groups that differ by a level",
        ),
        Baseline(
            "mixed",
            "Laird & Ware 1982",
            "a linear (for classes logistic) mixed model with random slopes; few groups, straight "
            "lines",
        ),
        Baseline(
            "gp",
            "Rasmussen & Williams 2006",
            "boosting plus a Gaussian process for each group: smooth curves of few columns",
        ),
    )
}


def find(name: str) -> Row | Baseline:
    """The row of a method or a baseline.

    Raises:
        InputError: there is none of this name.
    """
    return BASELINES[name] if name in BASELINES else methods.get(name, also=tuple(BASELINES))

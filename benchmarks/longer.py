"""What takes minutes to train and must hold: measured, kept, and looked at by the tests.

    python -m benchmarks.longer [NAME ...]     measures, and keeps it in benchmarks/longer.json

`tests/benchmarks/test_quality.py` asks of what was kept whether it holds.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.files import rounded, write
from benchmarks.oracle import ROOT, read

KEPT = ROOT / "benchmarks" / "longer.json"
DATA = ROOT.parent / "shared" / "data"

Figures = dict[str, dict[str, float]]


class Claim(NamedTuple):
    """A claim about what was measured.

    Args:
        measure: gives the figures of each learner.
        misses: what of the claim these figures do not hold; empty: nothing.
    """

    measure: Callable[[], Figures]
    misses: Callable[[Figures], list[str]]


def views() -> Figures:
    """Held-out models of objects, after the quick training."""
    from metaprior.protocols import get

    protocol, found = get("ambiguous-generation"), {}
    held = protocol.load(DATA)
    for method in ("cnp", "np", "ensemble"):
        options = protocol.budgets["quick"]
        outcome = protocol.run(method, 0, options, held, lambda done, what: None)
        found[method] = {figure.metric: figure.value for figure in outcome.figures}
    return found


def views_misses(found: Figures) -> list[str]:
    """An ensemble and a neural process give all views together a higher density than the
    deterministic control, at its squared error.

    A latent cannot lower the error of the best mean; 5 % are several paired standard errors (2 %
    each).
    """
    control, process, ensemble = (found[name] for name in ("cnp", "np", "ensemble"))
    holds = {
        "np: joint": process["joint"] < control["joint"],
        "ensemble: joint": ensemble["joint"] < control["joint"],
        "np: mse": process["mse"] < 1.05 * control["mse"],
        "ensemble: mse": ensemble["mse"] < 1.05 * control["mse"],
        # Also without a proposal that has seen the answer.
        "np: mixture": process["mixture"] < control["mixture"],
        "np: side": process["side"] > process["near"] > 0 == control["side"],
    }
    return [what for what, held in holds.items() if not held]


def labels() -> Figures:
    """What labels chosen by uncertainty gain over random ones, after the quick training."""
    from unittest.mock import patch

    from metaprior.protocols.active_learning import PROTOCOL, judge
    from metaprior.protocols.active_learning.data import SUBJECTS, read_rows

    rows = {"weather": read_rows(DATA, SUBJECTS["weather"])}
    with patch.object(judge, "settings_of", lambda method, data: [judge.LINES, "weather"]):
        outcome = judge.run("process", 0, PROTOCOL.budgets["quick"], rows, lambda done, what: None)
    return {
        f"{figure.setting}, {figure.metric}": {"value": figure.value, "error": figure.error}
        for figure in outcome.figures
        if figure.metric in ("nll_gain_entropy", "nll_gain_bald")
    }


def labels_misses(found: Figures) -> list[str]:
    """Both gain more than 0.05 nats a row, beyond twice the paired error over tasks and dates."""
    low = {what: one["value"] - 1.96 * one["error"] for what, one in found.items()}
    return [what for what, value in low.items() if not value > 0.05]


def bandit() -> Figures:
    """Regret of MAML over uniform play's, in per cent, for two seeds."""
    from metaprior.protocols.bandit import PROTOCOL, judge

    found = {}
    for seed in (0, 1):
        out = judge.run("maml", seed, PROTOCOL.budgets["quick"], None, lambda done, what: None)
        regret = [
            f.value for f in out.figures if (f.metric, f.setting) == ("cumulative", "δ = 0.95")
        ]
        found[f"seed {seed}"] = {"cumulative": regret[0]}
    return found


def bandit_misses(found: Figures) -> list[str]:
    """It loses at most a tenth of what uniform play loses.

    Rounding alone moves a training by as much as another seed: of four, 5.6 to 8.2.
    """
    mean = sum(one["cumulative"] for one in found.values()) / len(found)
    return [] if mean <= 10 else ["cumulative"]


CLAIMS = {
    "views": Claim(views, views_misses),
    "labels": Claim(labels, labels_misses),
    "bandit": Claim(bandit, bandit_misses),
}


def main(names: list[str], out: Path = KEPT) -> None:
    """Measure the claims of these names, or all, and keep what was found."""
    unknown = set(names) - set(CLAIMS)
    if unknown:
        raise SystemExit(f"No claim {', '.join(sorted(unknown))}; there are {', '.join(CLAIMS)}.")
    kept = read(out) if out.exists() else {}
    for name in names or CLAIMS:
        began = time.perf_counter()
        figures = CLAIMS[name].measure()
        took = round(time.perf_counter() - began)
        kept[name] = {"seconds": took, "figures": rounded(figures)}
        write(out, kept, depth=3)
        misses = CLAIMS[name].misses(figures)
        print(f"{name}: {took} s; {'holds' if not misses else 'misses ' + ', '.join(misses)}")


if __name__ == "__main__":
    main(sys.argv[1:])

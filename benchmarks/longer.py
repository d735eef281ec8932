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


CLAIMS = {"views": Claim(views, views_misses)}


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

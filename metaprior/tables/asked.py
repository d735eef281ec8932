"""What is asked of a posterior: arguments checked, and the names of the columns of the answer."""

import numbers
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from metaprior import acquire
from metaprior.errors import InputError

# Levels closer to 0 or 1 are lost in single precision.
LEAST = Decimal("0.00001")
MOST_ROWS = 4096  # of whole curves: their covariance is a matrix of rows by rows


def whole(value: Any, name: str, least: int) -> int:
    """A whole number of at least `least`; `True`, 2.0 and the like are errors."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} is a whole number, at least {least}; got {value!r}.")
    return int(value)


def _decimal(value: Any, name: str) -> Decimal:
    """A number as it is written: 0.05 is 5 hundredths, and so is 1 - 0.95."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        exact = Decimal(str(value))
        if exact.is_finite():
            return round(exact, 10)
    raise InputError(f"{name}: {value!r} is not a number inside (0, 1).")


def named_levels(levels: Sequence[float]) -> dict[str, float]:
    """Quantile levels by the names of their columns: `q05`, `q50`, `q97.5`.

    Raises:
        InputError: where a level is not inside (0, 1), or comes twice.
    """
    if isinstance(levels, str) or not hasattr(levels, "__iter__"):
        raise InputError(f"levels is a list of numbers inside (0, 1); got {levels!r}.")
    found: dict[str, float] = {}
    for level in levels:
        share = _decimal(level, "levels")
        if not LEAST <= share <= 1 - LEAST:
            hint = "; 5 % is 0.05" if 1 < share < 100 else ""
            raise InputError(
                f"levels are inside (0, 1), from {LEAST:f} to {1 - LEAST:f}; got {level}{hint}."
            )
        name = level_name(share)
        if name in found:
            raise InputError(f"levels: {level} is given twice.")
        found[name] = float(share)
    if not found:
        raise InputError("levels is empty; give at least one level inside (0, 1).")
    return found


def level_name(share: Decimal) -> str:
    """`q05` of 0.05, `q2.5` of 0.025: different levels have different names."""
    percent = f"{(100 * share).normalize():f}"
    return f"q{percent.zfill(2)}"


def interval_levels(share: float) -> tuple[float, float]:
    """The levels between which so large a share of the outcomes lies, as many below as above."""
    part = _decimal(share, "interval")
    if not 0 < part < 1 - 2 * LEAST:
        hint = "; 95 % is 0.95" if 1 < part < 100 else ""
        raise InputError(f"interval is a share inside (0, 1), such as 0.9; got {share}{hint}.")
    return float((1 - part) / 2), float((1 + part) / 2)


def check_suggest(candidates: int, n: int, by: str | None, seed: int, goal: str = "learn") -> str:
    """Arguments of `suggest`; the rule, the goal's own by default."""
    rule = rule_of(goal, by)
    whole(n, "n", 1)
    if n > candidates:
        raise InputError(f"n is between 1 and the number of candidates ({candidates}); got {n}.")
    whole(seed, "seed", 0)
    return rule


def rule_of(goal: str, by: str | None) -> str:
    """The rule by which rows are chosen for a goal; the goal's first where none is given."""
    if goal not in acquire.GOALS:
        raise InputError(f"goal is one of {', '.join(acquire.GOALS)}; got {goal!r}.")
    rules = acquire.GOALS[goal]
    if by is None:
        return rules[0]
    if by in rules:
        return by
    others = [name for name, known in acquire.GOALS.items() if by in known]
    hint = f" {by} is for the goal {' or '.join(others)}." if others else ""
    raise InputError(f"by is one of {', '.join(rules)} for the goal {goal}; got {by!r}.{hint}")


def target_of(targets: Sequence[str], goal: str, target: str | None) -> int:
    """Number of the target that is to be maximised or minimised; 0 where the goal is to learn."""
    named = ", ".join(map(repr, targets))
    if goal == "learn":
        if target is not None:
            raise InputError(
                "the goal learn scores all targets together; target is for maximise and minimise."
            )
        return 0
    if target is None:
        if len(targets) > 1:
            raise InputError(f"target says which one to {goal}: one of {named}.")
        return 0
    if target not in targets:
        raise InputError(f"target is one of {named}; got {target!r}.")
    return list(targets).index(target)


def suggested(
    frame: pl.DataFrame, chosen: list[int], scores: list[float], gains: list[float]
) -> pl.DataFrame:
    """The chosen candidates with what is said of them."""
    extra = pl.DataFrame({"row": [c + 1 for c in chosen], "score": scores, "gain_nats": gains})
    keep = [c for c in frame.columns if c not in extra.columns]
    return pl.concat([frame[chosen].select(keep), extra], how="horizontal")


def check_sample(n: int, seed: int, functions: bool = False, noise: bool = True) -> None:
    """Arguments of `sample`."""
    whole(n, "n", 1)
    whole(seed, "seed", 0)
    if not noise and not functions:
        raise InputError("noise=False gives values of functions; add functions=True.")


def check_curves(rows: int, what: str = "functions=True") -> None:
    """Whole curves are drawn at so many rows."""
    if rows > MOST_ROWS:
        raise InputError(
            f"{what} takes at most {MOST_ROWS:,} rows at once, since their covariance is a "
            f"matrix of rows by rows; got {rows:,}."
        )

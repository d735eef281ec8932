"""What one part of the protocol says of itself; `judge.PARTS` lists them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from metaprior.protocols.protocol import Anchor, Drawn, Metric, Outcome, Picture, Tell


class Part(NamedTuple):
    """One task of the protocol. Its options are those of the budget under its name.

    Args:
        budgets: its options, `"quick"` and `"full"`; plain JSON values.
        choices: as in `Protocol`.
        metrics: its own; no two parts share one.
        references: names that it runs beside the methods. Parts may share a name: a cell then
            holds the outcomes of both.
        methods: whether it runs rows of THE TABLE.
        run: `(method, seed, options of the part, data, tell) -> Outcome`. Rows of predictions have
            the column `setting`.
        draw: `(cells, options of the part, data) -> pictures`; cells of other parts lack its
            arrays.
        sentence: `(cells) -> str`; `""` where it did not run.
        anchors: as in `Protocol`.
    """

    budgets: dict[str, dict[str, Any]]
    choices: tuple[str, ...]
    metrics: dict[str, Metric]
    references: tuple[str, ...]
    methods: bool
    run: Callable[[str, int, dict[str, Any], Any, Tell], Outcome]
    draw: Callable[[Sequence[Drawn], dict[str, Any], Any], list[Picture]]
    sentence: Callable[[Sequence[Drawn]], str]
    anchors: tuple[Anchor, ...] = ()

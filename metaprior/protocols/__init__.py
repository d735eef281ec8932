"""Evaluation protocols of Bayesian meta-learning; `metaprior reproduce NAME` runs one.

A new protocol is one folder whose `__init__.py` holds a constant `PROTOCOL`, and one row here. In
the folder `judge.py` trains and judges, `pictures.py` draws, and `data.py`, where there is one,
says where tasks come from.

All protocols share `protocol` (what a protocol is), `runner` (a folder of finished cells), `files`
and `results` (what is written there) and `page` (the report). Several share `cell` (options,
progress and training), `policies` (training policies by what they gain), `raw` (columns of raw
predictions), `spread` and `pooled` (standard errors), `finished` and `pictures` (reading and
drawing finished cells) and `characters` (episodes of drawn characters).
"""

import difflib
from importlib import import_module

from metaprior.errors import InputError
from metaprior.protocols.cell import trained
from metaprior.protocols.protocol import (
    Anchor,
    Drawn,
    Figure,
    Metric,
    Outcome,
    Picture,
    Protocol,
    able,
)

# Name on the command line to what it shows; its folder has the name with underscores.
PROTOCOLS: dict[str, str] = {
    "ambiguous-regression": (
        "a sine wave or a line: do drawn functions hold both, as often as they should"
    ),
    "ambiguous-classification": (
        "a circle from a few points inside it: sampled boundaries beside the exact posterior"
    ),
    "attributes": (
        "faces that share three attributes, of which a pair is meant: accuracy and coverage"
    ),
    "ambiguous-generation": "one view of an object, draw the others: error, diversity, likelihood",
    "few-shot-images": (
        "Omniglot 5- and 20-way, Lake's one-shot runs, or your own folder of class folders"
    ),
    "reliability": (
        "whether stated probabilities come true: calibration errors, intervals, unknown classes"
    ),
    "joint-calibration": "whether whole functions are calibrated, not points alone",
    "guarantee": "intervals that hold what they say in a new group, whatever the model",
    "selective": "what is left out when unsure, and tasks unlike all that were trained on",
    "shift": "tasks unlike those of training: other x, family, noise, a wrong row, more rows",
    "active-learning": "labels chosen by entropy, BALD or variance against random ones",
    "learned-acquisition": (
        "learning what to ask: label or answer in a stream of images, where to look for a source"
    ),
    "bayes-opt": "what a learned prior is worth to an optimiser: regret by evaluations",
    "few-tasks": "how many training tasks it takes, and when a prior overfits them",
    "properties": "expressive power, consistency and awareness of uncertainty, as numbers",
    "bandit": "the wheel bandit with Thompson sampling: regret",
    "navigation": "a goal that pays only nearby: walks to the goal of a drawn function, by episode",
    "oracles": "every method against exact posteriors",
}


def get(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: there is none; it says the nearest name.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(str(name).lower(), PROTOCOLS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`metaprior reproduce --list` names them."
        raise InputError(f"There is no protocol {name!r}; {hint}")
    return import_module(f"metaprior.protocols.{name.replace('-', '_')}").PROTOCOL


__all__ = [
    "PROTOCOLS",
    "Anchor",
    "Drawn",
    "Figure",
    "Metric",
    "Outcome",
    "Picture",
    "Protocol",
    "able",
    "get",
    "trained",
]

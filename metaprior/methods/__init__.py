"""THE TABLE of methods: a new method is one file and one row here."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import PRNGKeyArray

from metaprior.errors import InputError
from metaprior.method import AbstractLearner, Spec
from metaprior.methods.abml import ABML
from metaprior.methods.alpaca import ALPaCA
from metaprior.methods.autoregressive_mode import AutoregressiveMode
from metaprior.methods.bmaml import BMAML
from metaprior.methods.bnn import BNN
from metaprior.methods.cnp import CNP
from metaprior.methods.ensemble import Ensemble
from metaprior.methods.llama import LLAMA
from metaprior.methods.maml import MAML
from metaprior.methods.matching import MatchingNet
from metaprior.methods.neural_process import NP
from metaprior.methods.nuts import NUTS
from metaprior.methods.platipus import PLATIPUS
from metaprior.methods.process import Process
from metaprior.methods.protonet import ProtoNet
from metaprior.methods.recurrent import Recurrent
from metaprior.methods.snail import SNAIL
from metaprior.methods.stack import Stack
from metaprior.methods.vampire import VAMPIRE
from metaprior.methods.versa import VERSA


@dataclass(frozen=True)
class Row:
    """One method: what it is called, where it comes from, what it predicts and when to use it.

    Args:
        name: in configuration files and on the command line.
        method: its class.
        paper: authors and year.
        group: kind of method, for listings.
        kinds: what it predicts: `"numbers"`, `"classes"` or both.
        use: one line on when to use it.
        options: of `init`, where the row is a setting of a class that has other rows.
        learning_rate: for `fit`, where its own default trains more slowly.
        trainable: whether `fit` trains it; a learner that combines trained ones has its own way.
    """

    name: str
    method: type[AbstractLearner]
    paper: str
    group: str
    kinds: tuple[str, ...]
    use: str
    options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-3
    trainable: bool = True

    def init(self, spec: Spec, *, key: PRNGKeyArray, **hyper: Any) -> Any:
        """A fresh method of this row for tasks of this shape; `hyper` are further options of its
        class's `init`.
        """
        init: Callable | None = getattr(self.method, "init", None)
        if init is None:
            raise TypeError(
                f"{self.method.__name__} is made of trained learners; there is no untrained one."
            )
        return init(spec, key=key, **self.options | hyper)


BOTH = ("numbers", "classes")

METHODS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            "recurrent",
            Recurrent,
            "Santoro et al. 2016",
            "black box",
            BOTH,
            "rows that come in an order that matters; a recurrent network reads them one by one",
        ),
        Row(
            "snail",
            SNAIL,
            "Mishra et al. 2018",
            "black box",
            BOTH,
            "as recurrent, with attention and convolutions over the sequence; stronger and slower",
        ),
        Row(
            "cnp",
            CNP,
            "Garnelo et al. 2018",
            "black box",
            BOTH,
            "many tasks, fastest predictions, marginal uncertainty; one pass of a small network",
        ),
        Row(
            "acnp",
            CNP,
            "Kim et al. 2019",
            "black box",
            BOTH,
            "many tasks, marginal predictions close to the exact ones; a small transformer over the rows",
            options=dict(encoder="attention", width=64),
        ),
        Row(
            "ar_cnp",
            AutoregressiveMode,
            "Bruinsma et al. 2023",
            "black box",
            BOTH,
            "acnp, with joint predictions by feeding its own back: correlated, any shape; a pass a point",
            options=dict(encoder="attention", width=64),
        ),
        Row(
            "np",
            NP,
            "Garnelo et al. 2018",
            "black box",
            BOTH,
            "many tasks, few rows that leave several explanations, functions drawn as a whole",
        ),
        Row(
            "anp",
            NP,
            "Kim et al. 2019",
            "black box",
            BOTH,
            "as np for functions with detail: query points also read the nearby rows",
            options=dict(deterministic=True),
        ),
        Row(
            "flow_np",
            NP,
            "Garnelo et al. 2018; Rezende & Mohamed 2015",
            "black box",
            BOTH,
            "as np where what is known of the task is far from normal; slower to train",
            options=dict(q="flow"),
        ),
        Row(
            "maml",
            MAML,
            "Finn, Abbeel & Levine 2017",
            "optimisation",
            BOTH,
            "a network that a gradient step fits to a task; one function, no uncertainty about it",
        ),
        Row(
            "emaml",
            Ensemble,
            "Yoon et al. 2018",
            "optimisation",
            BOTH,
            "several networks as in maml, each by itself; a simple spread of explanations",
            options=dict(base="maml"),
        ),
        Row(
            "llama",
            LLAMA,
            "Grant et al. 2018",
            "optimisation",
            BOTH,
            "MAML with a normal posterior around what it finds, from the curvature of the rows",
            learning_rate=3e-3,
        ),
        Row(
            "abml",
            ABML,
            "Ravi & Beatson 2019",
            "optimisation",
            BOTH,
            "a prior over all weights of a network; variational inference by a few gradient steps",
            learning_rate=3e-3,
        ),
        Row(
            "vampire",
            VAMPIRE,
            "Nguyen, Do & Carneiro 2020",
            "optimisation",
            BOTH,
            "as abml, trained on how well draws predict the query alone",
            learning_rate=3e-3,
        ),
        Row(
            "bmaml",
            BMAML,
            "Yoon et al. 2018",
            "optimisation",
            BOTH,
            "a few networks that repel one another: several explanations of the same rows",
            learning_rate=1e-2,
        ),
        Row(
            "platipus",
            PLATIPUS,
            "Finn, Xu & Levine 2018",
            "optimisation",
            BOTH,
            "draws of an initial network, each then fitted to the rows; ambiguous tasks",
            learning_rate=3e-3,
        ),
        Row(
            "protonet",
            ProtoNet,
            "Snell, Swersky & Zemel 2017",
            "non-parametric",
            ("classes",),
            "classes that form clusters; quick, strong with very few examples a class",
        ),
        Row(
            "matching",
            MatchingNet,
            "Vinyals et al. 2016",
            "non-parametric",
            ("classes",),
            "classes of several clusters each; compares with every row instead of class means",
        ),
        Row(
            "dkt",
            Process,
            "Patacchiola et al. 2020",
            "non-parametric",
            BOTH,
            "smooth or periodic functions of a few inputs; an exact Gaussian process on learned features",
            options=dict(kernel="spectral", width=40, features=40),
            learning_rate=3e-3,
        ),
        Row(
            "versa",
            VERSA,
            "Gordon et al. 2019",
            "last layer",
            BOTH,
            "many tasks, fast predictions; a distribution over last layers in one pass of a network",
        ),
        Row(
            "alpaca",
            ALPaCA,
            "Harrison, Sharma & Pavone 2018",
            "last layer",
            ("numbers",),
            "numbers, a few hundred tasks or more; exact last layer, joint draws, any number of outcomes",
        ),
        Row(
            "process",
            Process,
            "Shah, Wilson & Ghahramani 2014; Patacchiola et al. 2020",
            "last layer",
            BOTH,
            "few tasks and few rows a task; the default for tables",
            learning_rate=1e-2,
        ),
        Row(
            "nuts",
            NUTS,
            "Hoffman & Gelman 2014",
            "reference",
            BOTH,
            "the exact posterior of a learned prior, to compare others with; slow",
        ),
        Row(
            "bnn",
            BNN,
            "Blundell et al. 2015",
            "reference",
            BOTH,
            "the control: a Bayesian network fitted to every task by itself, without meta-learning",
            trainable=False,
        ),
        Row(
            "ensemble",
            Ensemble,
            "Lakshminarayanan, Pritzel & Blundell 2017",
            "combination",
            BOTH,
            "uncertainty for a method that has none, at the price of training it several times",
        ),
        Row(
            "stack",
            Stack,
            "Wolpert 1992; Yao, Vehtari, Simpson & Gelman 2018",
            "combination",
            BOTH,
            "the default (`auto`): processes and baselines mixed with weights that depend on K",
            trainable=False,
        ),
    )
}


def get(name: str) -> Row:
    """The row of a method.

    Example:
        >>> from metaprior import methods
        >>> methods.get("np").method.__name__
        'NP'
        >>> methods.get("mamel")
        Traceback (most recent call last):
        ...
        metaprior.errors.InputError: There is no method 'mamel'; did you mean 'maml'?
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(str(name).lower(), METHODS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}."
    raise InputError(f"There is no method {name!r}; {hint}")


__all__ = [
    "ABML",
    "BMAML",
    "BNN",
    "CNP",
    "LLAMA",
    "MAML",
    "METHODS",
    "NP",
    "NUTS",
    "PLATIPUS",
    "SNAIL",
    "VAMPIRE",
    "VERSA",
    "ALPaCA",
    "AutoregressiveMode",
    "Ensemble",
    "MatchingNet",
    "Process",
    "ProtoNet",
    "Recurrent",
    "Row",
    "Stack",
    "get",
]

"""THE TABLE of methods: a new method is one file and one row here."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from metaprior.methods.convcnp import ConvCNP
from metaprior.methods.ensemble import Ensemble
from metaprior.methods.gnp import GNP
from metaprior.methods.llama import LLAMA
from metaprior.methods.maml import MAML
from metaprior.methods.matching import MatchingNet
from metaprior.methods.metaqda import MetaQDA
from metaprior.methods.neural_process import NP
from metaprior.methods.nuts import NUTS
from metaprior.methods.pacoh import PACOH
from metaprior.methods.platipus import PLATIPUS
from metaprior.methods.process import Process
from metaprior.methods.protonet import ProtoNet
from metaprior.methods.recurrent import Recurrent
from metaprior.methods.snail import SNAIL
from metaprior.methods.stack import Stack
from metaprior.methods.vampire import VAMPIRE
from metaprior.methods.versa import VERSA

BOTH = ("numbers", "classes")


@dataclass(frozen=True)
class Row:
    """One method: what it is called, where it comes from, what it predicts and when to use it.

    Args:
        name: in configuration files and on the command line.
        method: its class.
        paper: authors and year.
        use: one line on when to use it.
        kinds: what it predicts: `"numbers"`, `"classes"` or both.
        options: of `init`, where the row is a setting of a class that has other rows.
        inputs: most columns of x that it reads, the prediction of a pooled model aside; `None`: any
            number.
        trainable: whether `fit` trains it; a learner that combines trained ones has its own way.
        group: kind of method, for listings: its heading in THE TABLE.
    """

    name: str
    method: type[AbstractLearner]
    paper: str
    use: str
    kinds: tuple[str, ...] = BOTH
    options: dict[str, Any] = field(default_factory=dict)
    inputs: int | None = None
    trainable: bool = True
    group: str = ""

    def init(self, spec: Spec, *, key: PRNGKeyArray, **hyper: Any) -> Any:
        """A fresh method of this row for tasks of this shape.

        Args:
            spec: shape of the tasks.
            key: initial values.
            hyper: further options of the class's `init`.
        """
        init: Callable | None = getattr(self.method, "init", None)
        if init is None:
            raise TypeError(
                f"{self.method.__name__} is made of trained learners; there is no untrained one."
            )
        return init(spec, key=key, **self.options | hyper)


THE_TABLE: dict[str, tuple[Row, ...]] = {
    "black box": (
        Row(
            "recurrent",
            Recurrent,
            "Santoro et al. 2016",
            "rows that come in an order that matters; a recurrent network reads them one by one",
        ),
        Row(
            "snail",
            SNAIL,
            "Mishra et al. 2018",
            "as recurrent, with attention and convolutions over the rows; stronger and slower",
        ),
        Row(
            "cnp",
            CNP,
            "Garnelo et al. 2018",
            "many tasks, fastest predictions, marginal uncertainty; one pass of a small network",
        ),
        Row(
            "acnp",
            CNP,
            "Kim et al. 2019",
            "many tasks, marginal predictions close to exact; a small transformer over the rows",
            options=dict(encoder="attention", width=64),
        ),
        Row(
            "tnp",
            CNP,
            "Nguyen & Grover 2022",
            "as acnp, deeper, with outcomes of any shape; closer to exact, slower to train",
            options=dict(encoder="attention", width=64, depth=4, components=5),
        ),
        Row(
            "ar_cnp",
            AutoregressiveMode,
            "Bruinsma et al. 2023",
            "acnp with joint, correlated predictions: it reads its own; one pass a point",
            options=dict(base="acnp"),
        ),
        Row(
            "convcnp",
            ConvCNP,
            "Gordon et al. 2020",
            "curves of one input that look alike wherever they are; also beyond the training range",
            kinds=("numbers",),
            inputs=1,
        ),
        Row(
            "gnp",
            GNP,
            "Markou et al. 2022; Bruinsma et al. 2021",
            "as cnp with joint normal predictions; slow to learn from rows, so rather agnp",
            kinds=("numbers",),
        ),
        Row(
            "agnp",
            GNP,
            "Markou et al. 2022; Kim et al. 2019",
            "as acnp with joint normal predictions: functions drawn as a whole, in one pass",
            kinds=("numbers",),
            options=dict(encoder="attention", width=64),
        ),
        Row(
            "np",
            NP,
            "Garnelo et al. 2018",
            "many tasks, few rows that leave several explanations, functions drawn as a whole",
        ),
        Row(
            "anp",
            NP,
            "Kim et al. 2019",
            "as np for functions with detail: query points also read the nearby rows",
            options=dict(deterministic=True),
        ),
        Row(
            "flow_np",
            NP,
            "Garnelo et al. 2018; Rezende & Mohamed 2015",
            "as np where what is known of the task is far from normal; slower to train",
            options=dict(q="flow"),
        ),
    ),
    "optimisation": (
        Row(
            "maml",
            MAML,
            "Finn, Abbeel & Levine 2017",
            "a network that gradient steps fit to a task; one function, no uncertainty about it",
        ),
        Row(
            "maml_fixed",
            MAML,
            "Finn, Abbeel & Levine 2017",
            "maml as in the paper: one step at a fixed rate, for comparison",
            options=dict(inner_lr=0.01, steps=1, clip=None),
        ),
        Row(
            "emaml",
            Ensemble,
            "Yoon et al. 2018",
            "several networks as in maml, each by itself; a simple spread of explanations",
            options=dict(base="maml"),
        ),
        Row(
            "llama",
            LLAMA,
            "Grant et al. 2018",
            "maml with a normal posterior around its network, from the curvature of the rows",
        ),
        Row(
            "abml",
            ABML,
            "Ravi & Beatson 2019",
            "a prior over all weights of a network; variational inference by a few gradient steps",
        ),
        Row(
            "vampire",
            VAMPIRE,
            "Nguyen, Do & Carneiro 2020",
            "as abml, trained on how well draws predict the query alone",
        ),
        Row(
            "bmaml",
            BMAML,
            "Yoon et al. 2018",
            "a few networks that repel one another: several explanations of the same rows",
        ),
        Row(
            "platipus",
            PLATIPUS,
            "Finn, Xu & Levine 2018",
            "draws of an initial network, each then fitted to the rows; ambiguous tasks",
        ),
    ),
    "non-parametric": (
        Row(
            "protonet",
            ProtoNet,
            "Snell, Swersky & Zemel 2017",
            "classes that form clusters; quick, strong with very few examples a class",
            kinds=("classes",),
        ),
        Row(
            "matching",
            MatchingNet,
            "Vinyals et al. 2016",
            "classes of several clusters each; compares with every row instead of class means",
            kinds=("classes",),
        ),
        Row(
            "metaqda",
            MetaQDA,
            "Zhang, Meng, Henry & Hospedales 2021",
            "classes that form clusters of several shapes; calibrated with very few examples",
            kinds=("classes",),
        ),
        Row(
            "dkt",
            Process,
            "Patacchiola et al. 2020",
            "smooth or periodic functions of a few inputs; an exact Gaussian process on features",
            options=dict(kernel="spectral", width=40, features=40),
        ),
    ),
    "last layer": (
        Row(
            "versa",
            VERSA,
            "Gordon et al. 2019",
            "many tasks, fast predictions; a network gives a distribution over last layers",
        ),
        Row(
            "alpaca",
            ALPaCA,
            "Harrison, Sharma & Pavone 2018",
            "hundreds of tasks, any number of outcomes; an exact last layer, joint draws",
            kinds=("numbers",),
        ),
        Row(
            "process",
            Process,
            "Shah, Wilson & Ghahramani 2014; Patacchiola et al. 2020",
            "few tasks and few rows a task; the default for tables",
        ),
    ),
    "hyper-prior": (
        Row(
            "pacoh",
            PACOH,
            "Rothfuss, Fortuin, Josifoski & Krause 2021",
            "process held back by a hyper-prior, as far as the number of tasks asks for it",
        ),
        Row(
            "pacoh_nn",
            PACOH,
            "Rothfuss, Fortuin, Josifoski & Krause 2021",
            "as pacoh, a normal prior over all weights of a network; each task is sampled anew",
            options=dict(family="nn"),
        ),
        Row(
            "f_pacoh",
            PACOH,
            "Rothfuss, Heyn, Chen & Krause 2021",
            "few tasks, and questions beyond where their rows lie: there it says it knows little",
            kinds=("numbers",),
            options=dict(functional=True),
        ),
    ),
    "reference": (
        Row(
            "nuts",
            NUTS,
            "Hoffman & Gelman 2014",
            "the exact posterior of a learned prior, to compare others with; slow",
        ),
        Row(
            "bnn",
            BNN,
            "Blundell et al. 2015",
            "the control: a Bayesian network for every task by itself, without meta-learning",
            trainable=False,
        ),
    ),
    "combination": (
        Row(
            "ensemble",
            Ensemble,
            "Lakshminarayanan, Pritzel & Blundell 2017",
            "uncertainty for a method that has none, at the price of training it several times",
        ),
        Row(
            "stack",
            Stack,
            "Wolpert 1992; Yao, Vehtari, Simpson & Gelman 2018",
            "the default (`auto`): processes and baselines mixed with weights that depend on K",
            trainable=False,
        ),
    ),
}

METHODS: dict[str, Row] = {
    row.name: replace(row, group=group) for group, rows in THE_TABLE.items() for row in rows
}


def get(name: str, also: Sequence[str] = ()) -> Row:
    """The row of a method.

    Args:
        name: of the method.
        also: further names that a message may suggest.

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
    known = (*METHODS, *also)
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
    raise InputError(f"There is no method {name!r}; {hint}")


__all__ = [
    "ABML",
    "BMAML",
    "BNN",
    "CNP",
    "GNP",
    "LLAMA",
    "MAML",
    "METHODS",
    "NP",
    "NUTS",
    "PACOH",
    "PLATIPUS",
    "SNAIL",
    "VAMPIRE",
    "VERSA",
    "ALPaCA",
    "AutoregressiveMode",
    "ConvCNP",
    "Ensemble",
    "MatchingNet",
    "MetaQDA",
    "Process",
    "ProtoNet",
    "Recurrent",
    "Row",
    "Stack",
    "get",
]

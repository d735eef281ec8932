"""Which label next? Labels chosen by what a posterior does not know, against random ones."""

from metaprior.protocols.active_learning.data import SUBJECTS, load, reads
from metaprior.protocols.active_learning.figures import METRICS, metric_of
from metaprior.protocols.active_learning.judge import EXACT, UNINFORMED, run
from metaprior.protocols.active_learning.labelling import RULES
from metaprior.protocols.active_learning.pictures import SETTINGS, draw, sentence
from metaprior.protocols.protocol import Anchor, Protocol, able

_BY_DEFINITION = "By definition: gains are taken from random labels."
_AT_ONCE = "Exact: who knows the outcomes labels the best row at once."


def _anchors() -> tuple[Anchor, ...]:
    """What follows without running anything."""
    anchors = []
    for setting in SETTINGS:
        for kind in ("nll", "error"):
            for rule in RULES[1:]:
                metric = metric_of(kind, rule)
                anchors.append(Anchor("random labels", setting, metric, 0.0, _BY_DEFINITION))
    for setting, subject in SUBJECTS.items():
        if subject.seeks:
            anchors.append(Anchor("the best row first", setting, "regret_random", 0.0, _AT_ONCE))
    return tuple(anchors)


LEAD = (
    "A posterior that knows what it does not know should say which row to label next. Every rule "
    "starts with no labels, labels one row of a pool after another, and is judged on other rows "
    "of the same task. All rules have the same tasks, pools and draws, so that differences from "
    "random labels are paired."
)
CHOICES = (
    "Entropy: of the predictive. BALD: the mutual information of a row's outcome and the function. "
    "Variance: the part of the predictive variance that observations can remove. Of equal scores "
    "the first row is taken, and no row is labelled twice.",
    f"“{UNINFORMED}” sees no label: every class alike, or the mean and the standard deviation of "
    "the training rows. In no setting are the best labels known, those that most lower the NLL of "
    "other rows, so gains have no upper bound beside them. The gains of the exact posterior stand "
    "where there is one.",
    "Areas are means over 1 to 8 labels. A gain is random's area less the rule's, task by task. "
    "Tasks that share a unit (a date, an assay, a data set) are averaged before standard errors "
    "are taken, so errors are over units.",
    "Training tasks show 0 to 8 rows of a pool. Half of the tasks show rows that a random score "
    "of x prefers. Rules choose unevenly, and methods trained on even choices alone are sure of "
    "themselves with uneven ones.",
    "Sine or line: a pool of 30 and 30 judged rows, noise 0.3. Drawn functions represent the exact "
    "posterior.",
    "Omniglot: five classes, of which any drawing may be labelled; none is at first. Lake's "
    "background alphabets are for training and his evaluation alphabets for judging. Images are 48 "
    "principal components. Error: the share of wrong classes.",
    "Weather: of a day at an airport, 14 hours may be labelled and the others are judged. Days are "
    "split by date, because three airports share one weather.",
    "Molecules: 40 compounds of an assay may be labelled, 24 others are judged; 13 descriptors "
    "without the structure itself. Configurations: the log of the error of 40 configurations on a "
    "data set; the smallest is best.",
    "Columns and outcomes of a table are standardised by its training groups alone. Where there "
    "are several splits, each judges groups that its prior was not trained on.",
    "Improvement: expected improvement on the best row labelled so far, or on the pool's mean "
    "before there is one. A second: divided by the training time that a regression on the other "
    "data sets expects. Regret in time is the mean regret while time is spent: half as many "
    "average configurations as there are labels. The seconds are measured, and no rule sees them.",
)

PAPERS = (
    'Houlsby, Huszár, Ghahramani & Lengyel, "Bayesian Active Learning for Classification and '
    'Preference Learning", 2011',
    'Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018, section 5',
    'Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box '
    'Functions", 1998',
    'Snoek, Larochelle & Adams, "Practical Bayesian Optimization of Machine Learning '
    'Algorithms", NeurIPS 2012',
)
BUDGETS = {
    "quick": {
        "labels": 8,
        "samples": [64, 24],
        "steps": {"lines": 1_500, "classes": 600, "tables": 600},
        "tasks": 100,
        "table_tasks": 90,
        "slow_tasks": 10,
        "folds": {"weather": 1, "molecules": 1, "configurations": 1},
    },
    "full": {
        "labels": 8,
        "samples": [64, 24],
        "steps": {"lines": 20_000, "classes": 10_000, "tables": 3_000},
        "tasks": 500,
        "table_tasks": 300,
        "slow_tasks": 50,
        "folds": {"weather": 1, "molecules": 5, "configurations": 5},
    },
}

PROTOCOL = Protocol(
    name="active-learning",
    title="Which label next?",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "platipus", "process"),
    able=tuple(dict.fromkeys((*able("numbers"), *able("classes")))),
    budgets=BUDGETS,
    run=run,
    draw=draw,
    references=(EXACT, UNINFORMED),
    anchors=_anchors(),
    load=load,
    reads=reads,
    sentence=sentence,
)

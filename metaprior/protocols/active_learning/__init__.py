"""Labels chosen by what a posterior does not know, against labels chosen at random."""

from metaprior.protocols.active_learning.data import SUBJECTS, load, reads
from metaprior.protocols.active_learning.figures import METRICS
from metaprior.protocols.active_learning.judge import BLOBS, CHARACTERS, EXACT, LINES, run
from metaprior.protocols.active_learning.labelling import RULES
from metaprior.protocols.active_learning.pictures import UNINFORMED, draw, sentence
from metaprior.protocols.protocol import Anchor, Protocol, able

_LABELS = {"labels": 8, "samples": [64, 24]}


PROTOCOL = Protocol(
    name="active-learning",
    title="Which label next?",
    lead=(
        "A posterior that knows what it does not know should say which row to label next. Every rule starts with nothing, "
        "labels one row of a pool after another, and is judged on other rows of the same task; the same tasks, pools and "
        "draws serve every rule, so that differences from random labels are paired."
    ),
    papers=(
        'Houlsby, Huszár, Ghahramani & Lengyel, "Bayesian Active Learning for Classification and Preference Learning", 2011',
        'Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018, section 5',
        'Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box Functions", 1998',
        'Snoek, Larochelle & Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NeurIPS 2012',
    ),
    choices=(
        "Entropy: of the predictive. BALD: the mutual information of a row's outcome and the function. Variance: the part of the "
        "predictive variance that observations can remove. Ties and rows already labelled are left out; nothing is labelled twice.",
        f"“{UNINFORMED}” sees no label: every class alike, or the mean and the standard deviation of the training rows. Labels "
        "that best lower the NLL of other rows are known in no setting, so that gains have no upper bound beside them; the "
        "exact posterior's gains stand where there is one.",
        "Areas are means over 1 to 8 labels; gains are random's area less the rule's, task by task. Tasks that share a unit (a "
        "date, an assay, a data set) are averaged before standard errors are taken, and the errors are over units.",
        "Training tasks show 0 to 8 rows of a pool, half of them rows that a random score of x prefers: rules do not choose "
        "evenly, and methods trained on even choices alone are sure of themselves with uneven ones.",
        "Sine or line: a pool of 30 and 30 judged rows, noise 0.3. The exact posterior is represented by "
        "drawn functions.",
        "Omniglot: five classes of which any drawing may be labelled (none at first), Lake's background alphabets for training "
        "and his evaluation alphabets for judging; images as 48 principal components. Error: the share of wrong classes.",
        "Weather: an airport's day, 14 of its hours may be labelled and the others are judged; days are split by date, since three "
        "airports share one weather.",
        "Molecules: 40 compounds of an assay may be labelled, 24 others are judged; 13 descriptors without the structure itself. "
        "Configurations: the log of the error of 40 configurations on a data set; smallest is best.",
        "Columns and outcomes of a table are standardised by its training groups alone. Where splits are several, each judges "
        "groups that its prior was not trained on.",
        "Improvement: expected improvement on the best row labelled so far (on the pool's mean before there is one); a second: "
        "divided by the training time that a regression on the other data sets expects. Regret in time is the mean regret while "
        "seconds of half as many average configurations as there are labels are spent; measured seconds, which no rule sees.",
    ),
    metrics=METRICS,
    methods=("np", "dkt", "process"),
    able=tuple(dict.fromkeys(n for k in ("numbers", "classes") for n in able(k))),
    budgets={
        "quick": _LABELS
        | {
            "steps": {"lines": 1_500, "classes": 600, "tables": 600},
            "tasks": 100,
            "table_tasks": 90,
            "slow_tasks": 10,
            "folds": {"weather": 1, "molecules": 1, "configurations": 1},
        },
        "full": _LABELS
        | {
            "steps": {"lines": 20_000, "classes": 10_000, "tables": 3_000},
            "tasks": 500,
            "table_tasks": 300,
            "slow_tasks": 50,
            "folds": {"weather": 1, "molecules": 5, "configurations": 5},
        },
    },
    run=run,
    draw=draw,
    references=(EXACT, UNINFORMED),
    anchors=tuple(
        Anchor(
            "random labels",
            setting,
            f"{kind}_gain_{rule}",
            0.0,
            "By definition: gains are taken from random labels.",
        )
        for setting in (LINES, CHARACTERS, BLOBS, *SUBJECTS)
        for kind in ("nll", "error")
        for rule in RULES[1:]
    )
    + tuple(
        Anchor(
            "the best row first",
            setting,
            "regret_random",
            0.0,
            "Exact: who knows the outcomes labels the best row at once.",
        )
        for setting, subject in SUBJECTS.items()
        if subject.seeks
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)

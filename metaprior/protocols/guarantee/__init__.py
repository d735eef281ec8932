"""Intervals that hold what they say in new groups, whatever the model is worth."""

from metaprior.protocols.guarantee.data import SUBJECTS, load, reads
from metaprior.protocols.guarantee.judge import HOLDOUT, LOW, REFERENCES, run
from metaprior.protocols.guarantee.pictures import draw, sentence
from metaprior.protocols.guarantee.simulated import SHARE
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

LEAD = (
    "A posterior's 90 % interval holds nine tenths of the rows of new groups if its model is "
    "right. With groups kept aside it can be made to hold that whatever the model is: hierarchical "
    "conformal prediction counts groups, not rows, since rows of a group are alike. The price is "
    "width, and at least nine groups."
)
CHOICES = (
    f"All intervals are of {SHARE:.0%}. The guarantee is for a random row of a new group, over "
    "groups: a group may have more rows outside.",
    "Simulated groups: y is a group's level, standard normal, plus noise. A group has 2, 2, 2 or "
    "60 rows, equally likely; the noise of small groups has a deviation of 1.5, of large ones 0.5. "
    "Nothing is observed, and the interval is |y| <= t. What a threshold holds of a new group is "
    "computed from the law. Errors are over repetitions.",
    f"Tables: the prior learns from {1 - HOLDOUT:.0%} of the groups. The others are parted in two "
    "halves many times: one sets how much wider intervals must be, the other is judged. Groups "
    "that share a date are one unit. Observed rows are a random choice. Figures are means over "
    "groups of the mean over a group's rows, errors over groups.",
    "The posterior's interval is made wider by the same amount at both ends, on the scale that the "
    "target is modelled on (conformalised quantile regression). Widths are means in units of y, "
    "of which a few rows may be most where the scale is a logarithm. Of classes, the most probable "
    "ones until they have the share; width is how many they are.",
    "Binomial interval: of the share of groups whose one random row is held, one trial a group "
    "(Clopper and Pearson). One split of a table has no better error than that.",
    "Controls: the posterior's own interval, which costs nothing; thresholds from rows as if they "
    "were exchangeable; and a guaranteed interval of the marginal distribution, which has no "
    "features and observes no rows: a model must be narrower than that.",
    "stack is what `fit` does by default. Methods of numbers alone leave contraception out. Where "
    "too few groups have more than K rows, nothing is said at that K.",
)
PAPERS = (
    'Dunn, Wasserman & Ramdas, "Distribution-Free Prediction Sets for Two-Layer Hierarchical '
    'Models", JASA 2023',
    'Lee, Barber & Willett, "Distribution-Free Inference with Hierarchical Data", 2023',
    'Fisch, Schuster, Jaakkola & Barzilay, "Few-Shot Conformal Prediction with Auxiliary Tasks", '
    "ICML 2021",
    'Romano, Patterson & Candès, "Conformalized Quantile Regression", NeurIPS 2019',
)
METRICS = {
    "coverage": Metric("rows of new groups held", "share", SHARE),
    "width": Metric("width", "units of y, or classes", "low"),
    "own_coverage": Metric("held by the posterior's own interval", "share", SHARE),
    "own_width": Metric("width of the posterior's own interval", "units of y, or classes", None),
    "marginal_width": Metric("width without a model", "units of y, or classes", None),
    "pooled_coverage": Metric("held with rows as if exchangeable", "share", SHARE),
    "low95": Metric("lower end of the binomial interval", "share", None),
    "high95": Metric("upper end of the binomial interval", "share", None),
    "short": Metric(f"groups of which less than {LOW:g} is held", "share of groups", None),
}
BUDGETS = {
    "quick": {
        "sizes": [9, 20, 50, 200],
        "repetitions": 1_000,
        "tables": list(SUBJECTS),
        "shots": [0, 2, 10],
        "partitions": 60,
        "most_steps": 0,  # as many as the method takes
    },
    "full": {
        "sizes": [9, 20, 50, 200],
        "repetitions": 10_000,
        "tables": list(SUBJECTS),
        "shots": [0, 1, 2, 5, 10],
        "partitions": 400,
        "most_steps": 0,
    },
}
_BEFORE = "Computed elsewhere: 1,200 to 3,000 repetitions, s.e. .005 to T = 50 and .008 at 200."
_ANCHORS = {  # of each T, coverage and width
    "pooled rows": ((0.731, 3.97), (0.742, 3.79), (0.765, 3.86), (0.750, 3.91)),
    "distribution pooling": ((0.886, 5.65), (0.891, 5.40), (0.901, 5.49), (0.923, 5.48)),
    "hierarchical": ((0.947, 7.28), (0.925, 6.26), (0.916, 5.78), (0.918, 5.56)),
    "one row a group": ((0.902, 6.23), (0.903, 5.91), (0.906, 5.67), (0.910, 5.52)),
}

PROTOCOL = Protocol(
    name="guarantee",
    title="Intervals that hold in a new group",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("stack",),
    able=("stack", *able("numbers", but=("ensemble",))),
    budgets=BUDGETS,
    without={"ensemble": "several emaml, which runs by itself"},
    run=run,
    draw=draw,
    references=REFERENCES,
    anchors=tuple(
        Anchor(f"{rule}, computed before", f"simulated: T = {T}", metric, value, _BEFORE)
        for rule, found in _ANCHORS.items()
        for T, values in zip((9, 20, 50, 200), found)
        for metric, value in zip(("coverage", "width"), values)
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)

"""Are functions calibrated, or points alone?"""

from metaprior.protocols.joint_calibration.judge import (
    ASKED,
    DRAWS,
    EXACT,
    NARROW,
    NOISE,
    REFERENCES,
    SHOWN,
    WIDE,
    run,
)
from metaprior.protocols.joint_calibration.pictures import draw, sentence
from metaprior.protocols.oracles.pointwise import BY_POINT
from metaprior.protocols.protocol import MANY_TASKS, Anchor, Metric, Protocol, able

LEAD = (
    "A method can be right at every point and still know no functions: its bands hold what they "
    "should, but what it draws is noise around a mean. Where the truth lies among draws of all "
    "outcomes of a task together tells the two apart, and shows a spread that is a fifth off."
)
CHOICES = (
    f"Functions are from a Gaussian process with the squared-exponential kernel, length 0.25, "
    f"noise {NOISE}, x in [-2, 2]. Training shows 0 to 10 rows. A judged task shows {SHOWN} and "
    f"asks {ASKED}, of which {DRAWS} outcomes are drawn together.",
    "Ranks: how many draws lie below the truth; for a calibrated method as often any number as any "
    "other. TARP: of the distance of the vector of outcomes from a random place, normal with unit "
    "variance. One outcome: of the first query row. Highest and average: of the function without "
    "noise over the query rows (simulation-based calibration). A method that draws one function "
    "has the truth above or below all of its draws.",
    "Each task gives one rank of each kind: rows of a task are not independent. The largest "
    "distance of the ranks' distribution from the uniform one is stated. 95 % of calibrated "
    "methods stay below the bound, 1.358 over the root of the number of tasks.",
    "Central: the share of tasks whose TARP rank is among the middle half, or nine tenths.",
    "Draws of the prior are calibrated too, and say nothing of the rows: the energy score tells. "
    "It is the mean distance of draws from the truth, less half of that between draws.",
    "Four controls are known to be right or wrong: the exact posterior, its marginals drawn "
    "independently at each point, and its draws put nearer to or farther from their mean.",
)
PAPERS = (
    'Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian Inference Algorithms with '
    'Simulation-Based Calibration", 2018',
    'Lemos, Coogan, Hezaveh & Perreault-Levasseur, "Sampling-Based Accuracy Testing of Posterior '
    'Estimators for General Inference", ICML 2023',
    'Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007',
)
_APART = "largest distance from uniform"
METRICS = {
    "tarp": Metric("all outcomes together (TARP)", _APART, "low"),
    "pit": Metric("one outcome", _APART, "low"),
    "highest": Metric("highest value of the function", _APART, "low"),
    "average": Metric("average of the function", _APART, "low"),
    "bound": Metric("bound", "95 % of calibrated methods are below", None),
    "central50": Metric("middle half", "share of tasks", 0.5),
    "central90": Metric("middle nine tenths", "share of tasks", 0.9),
    "energy": Metric("energy score", "units of y", "low"),
}
BUDGETS = {
    "quick": {"steps": 1_000, "tasks": 1_500, "minutes": 0.5},
    "full": {"steps": 20_000, "tasks": 6_000, "minutes": 20.0},
}
_BEFORE = "Computed elsewhere: 1,500 other tasks, 100 draws."
_ANCHORS = {EXACT: 0.025, BY_POINT: 0.092, NARROW: 0.170, WIDE: 0.211}

PROTOCOL = Protocol(
    name="joint-calibration",
    title="Functions, or points alone?",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("acnp", "np", "dkt"),
    able=able("numbers", but=(*MANY_TASKS, "stack"), inputs=1),
    budgets=BUDGETS,
    without=MANY_TASKS,
    run=run,
    draw=draw,
    references=REFERENCES,
    anchors=tuple(
        Anchor(f"{name}, computed before", "", "tarp", value, _BEFORE)
        for name, value in _ANCHORS.items()
    ),
    sentence=sentence,
)

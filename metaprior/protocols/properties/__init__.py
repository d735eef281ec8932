"""The lecture's table: expressive power, consistency and awareness of uncertainty, as numbers."""

from metaprior.protocols.properties.judge import MIXED, run
from metaprior.protocols.properties.pictures import draw, sentence
from metaprior.protocols.protocol import Metric, Protocol, able

LEAD = (
    "The lecture's comparison of meta-learners, measured. Tasks are sine waves and lines, with "
    "noise of standard deviation 0.3 and 1 to 20 rows in training. Expressive power: how much of "
    "the Bayes-optimal learner's prediction a method's mean reproduces. Consistency: whether a "
    "method's error keeps falling as rows are added, beyond the numbers of rows seen in training "
    "and on tasks outside the training range. Awareness of uncertainty: a method's likelihood "
    "beside that of the exact posterior, and its stated spread beside its error."
)
CHOICES = (
    "The lecture names the properties and gives no measure. Expressive power here is "
    "1 - E(m - m*)² / E(m₀ - m*)² at 5 and 10 rows. m is the method's predictive mean, m* that of "
    "the exact posterior, m₀ that of the prior. 1: the optimal learner. 0: no better than without "
    "looking at the rows. The number covers both what a method can represent and what training "
    "made of it.",
    "Consistency: the least-squares slope of log error against log rows at 10, 50 and 200 rows, "
    "and the error at 200 rows divided by that at 10. The error of a task is the root mean square "
    "distance between the mean and the function without noise. Figures take the median over "
    "tasks: out of range, the few tasks on which descent diverges would decide a mean. (They show "
    "in the NLL.) The optimum is about -0.5 and 0.2.",
    "Awareness: the NLL above that of the exact posterior, pooled over 1 to 200 rows. Spread: the "
    "stated predictive standard deviation divided by the actual error, both as root mean squares. "
    "1 is right; below 1 the method is too sure. Also the coverage of the central 90 % interval.",
    "Outside the training range, other functions have amplitude 5 to 8, phase π to 2π, slope and "
    "intercept 3 to 5 (training: 0.1 to 5, 0 to π, -3 to 3). Other inputs lie in [5, 10] "
    "(training: [-5, 5]). The exact posterior knows the range there; no method does.",
    "Methods that predict classes alone (protonet, matching, metaqda) have a setting of their own. "
    "The label says whether the noisy outcome is positive. The error is that of the probability of "
    "label 1, and the exact posterior sums over a grid.",
    "All settings are the table's defaults. "
    f"`stack` mixes {' and '.join(MIXED)}, with weights from 256 further tasks. "
    "Slow methods are judged on fewer tasks; results.json has the counts. Errors of slopes, ratios "
    "and spreads come from 200 resamples of the tasks.",
)

PAPERS = (
    "Finn, “Learning to Learn with Gradients”, 2018, and Stanford CS330: the three properties",
    "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018: the tasks",
)
METRICS = {
    "expressive": Metric("expressive power", "share of the optimal learner's mean", "high"),
    "slope": Metric("consistency: slope", "of log error in log rows", "low"),
    "ratio": Metric("consistency: ratio", "error at 200 rows over that at 10", "low"),
    "gap": Metric("NLL above exact", "nats a row", "low"),
    "spread": Metric("spread", "stated over actual error", 1.0),
    "coverage90": Metric("coverage of 90 %", "share of rows", 0.9),
    "rmse": Metric("error to the function", "units of y (probability for classes)", "low"),
    "nll": Metric("NLL", "nats a row", "low"),
}
BUDGETS = {
    "quick": {
        "steps": {"": 1500, "classes": 1500},
        "batch": 16,
        "samples": 64,
        "tasks": {
            "": 64,
            "classes": 32,
            "nuts": 4,
            "bnn": 16,
            "llama": 32,
            "platipus": 32,
            "bmaml": 32,
            "ar_cnp": 32,
        },
    },
    "full": {
        "steps": {"": 20000, "classes": 20000},
        "batch": 25,
        "samples": 256,
        "tasks": {"": 400, "classes": 200, "nuts": 40, "bnn": 100, "ar_cnp": 200},
    },
}

PROTOCOL = Protocol(
    name="properties",
    title="Expressive power, consistency, awareness of uncertainty",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "np", "process"),
    able=tuple(dict.fromkeys((*able("numbers", inputs=1), "stack", *able("classes")))),
    budgets=BUDGETS,
    run=run,
    draw=draw,
    references=("exact", "exact_classes"),
    sentence=sentence,
)

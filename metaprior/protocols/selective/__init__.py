"""What is left out when unsure, and tasks unlike all that were trained on."""

from metaprior.protocols.protocol import MANY_TASKS, Metric, Protocol, able
from metaprior.protocols.selective.families import FREQUENCY, JUMPS, NOISE, ROWS
from metaprior.protocols.selective.judge import (
    BY_ERROR,
    NEAREST,
    RATIO,
    REFERENCES,
    SPREAD,
    run,
)
from metaprior.protocols.selective.pictures import draw, sentence
from metaprior.protocols.selective.risk import RESAMPLED

LEAD = (
    "Uncertainty is of use where it says what not to answer. Rows, or whole tasks, are left out in "
    "the order of the stated uncertainty, and what is kept should be right. And a task may be "
    "unlike all that were trained on: then its few rows are improbable under the learned prior."
)
CHOICES = (
    f"Tasks are sine waves and lines (`sources.SineLine`) with noise {NOISE}. Training shows 0 to "
    f"{ROWS} rows.",
    "Rows left out: errors are those of the method's mean, the order is that of its standard "
    "deviation. Excess area is the area under the curve of mean squared errors less that of the "
    "same errors in the order of the exact posterior's standard deviation; it may be negative, "
    "since a method's errors are its own. Of whole tasks the order is that of the mean over rows.",
    f"Errors are the spread over {RESAMPLED} sets of tasks drawn with replacement.",
    f"Controls of rows: the exact posterior's predictions left out at random (random), by the "
    f"distance to the nearest row shown ({NEAREST}), and by their true errors ({BY_ERROR}), which "
    "nobody knows.",
    "Strange tasks: the score is minus log p(y | x) of the first K rows of a task under the "
    "learned prior, row after row, each given those before it. A high one is strange.",
    f"Steps have two levels, uniform in [-5, 5], and jump at one of {len(JUMPS)} places. The other "
    f"frequency is {FREQUENCY:g} times that of training, with the same amplitudes, phases and "
    "noise.",
    f"{RATIO}: the log of the ratio of the two families' exact marginal likelihoods. By Neyman and "
    "Pearson no other score has a higher AUROC; it knows the other family, which no method does. "
    f"Exact is the score of the exact prior. {SPREAD}: the root mean square of the outcomes, which "
    "costs nothing.",
)
PAPERS = (
    'El-Yaniv & Wiener, "On the Foundations of Noise-Free Selective Classification", JMLR 2010',
    'Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017',
    'Geifman, Uziel & El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural '
    'Classifiers", ICLR 2019',
    'DeLong, DeLong & Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver '
    'Operating Characteristic Curves", Biometrics 1988',
)
METRICS = {
    "kept50": Metric("RMSE of the surer half of the rows", "units of y", "low"),
    "kept80": Metric("RMSE of the surer 80 % of the rows", "units of y", "low"),
    "rmse": Metric("RMSE of all rows", "units of y", "low"),
    "auroc": Metric("AUROC of strange tasks", "share of pairs", "high"),
    "area": Metric("area under risk and coverage", "squared units of y", "low"),
    "excess": Metric("excess area over the exact order", "squared units of y", "low"),
    "tasks50": Metric("RMSE of the surer half of the tasks", "units of y", "low"),
    "tasks80": Metric("RMSE of the surer 80 % of the tasks", "units of y", "low"),
    "tasks_excess": Metric("excess area of whole tasks", "squared units of y", "low"),
}
BUDGETS = {
    "quick": {"steps": 1_500, "tasks": 200, "shown": [1, 2, 5], "shots": [1, 2, 5, 10]},
    "full": {"steps": 20_000, "tasks": 2_000, "shown": [1, 2, 5], "shots": [1, 2, 5, 10]},
}

PROTOCOL = Protocol(
    name="selective",
    title="What not to answer",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("np", "dkt", "maml"),
    able=able("numbers", but=(*MANY_TASKS, "stack")),
    budgets=BUDGETS,
    without=MANY_TASKS,
    run=run,
    draw=draw,
    references=REFERENCES,
    sentence=sentence,
)

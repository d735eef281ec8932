"""Do stated probabilities come true, of numbers and of classes?"""

import numpy as np

from metaprior.protocols.protocol import Anchor, Metric, Protocol, able
from metaprior.protocols.reliability.data import BLOBS, CHARACTERS, WAY, load, reads
from metaprior.protocols.reliability.judge import EXACT, run
from metaprior.protocols.reliability.pictures import draw, sentence

BINNED = {
    "ece15": ("ECE", "top class, 15 bins of equal width"),
    "ece10": ("ECE, 10 bins", "top class, equal width"),
    "mce15": ("MCE", "top class, 15 bins, all that are not empty"),
    "mce15_10": ("MCE, 10 rows or more", "top class, 15 bins, those of at least 10 rows"),
    "adaptive15": ("adaptive ECE", "top class, 15 bins of equal mass"),
    "class_adaptive15": ("adaptive ECE of every class", "15 bins of equal mass a class"),
}


def _binned_metrics() -> dict[str, Metric]:
    """Each figure of bins, and beside it what is expected of right probabilities."""
    drawn = "expected of as many rows, labels drawn from its own probabilities"
    found = {}
    for name, (label, unit) in BINNED.items():
        found[name] = Metric(label, unit, "low")
        found[f"{name}_calibrated"] = Metric(f"{label}, were it calibrated", drawn, None)
    return found


_NOTHING = (
    "Exact: a fifth for each of five classes, whatever is seen; its expected calibration error on "
    "ever more rows is 0."
)

_UNIFORM = {
    "nll": float(np.log(WAY)),
    "accuracy": 1 / WAY,
    "brier": 1 - 1 / WAY,
    "entropy_in": float(np.log(WAY)),
    "entropy_out": float(np.log(WAY)),
    "auroc": 0.5,
}

LEAD = (
    "Of all rows that are given 80 %, 80 % should come true, and 90 % intervals should hold 90 % "
    "of the outcomes. The exact posterior is the standard where it is known. It is calibrated by "
    "construction, so what it shows here is the error that this many rows leave."
)
CHOICES = (
    "Query rows of all tasks are pooled before binning. Confidence is the largest probability. "
    "There are 15 and 10 bins (a, b] of equal width. MCE is given over all bins that are not "
    "empty, and over the bins of 10 rows or more.",
    "Adaptive ECE: 15 bins of equal mass, of the top class, and of every class (Nixon's ACE). The "
    "Brier score is summed over classes.",
    "Calibration error of numbers: mean and root mean square |share - level| over 20 quantile "
    "levels from 0.05 to 0.95.",
    "Probabilities are as the methods give them, the mean over draws of the weights: no "
    "temperature. With the option `temperature`, a temperature is fitted to the NLL of validation "
    "tasks, and its figures stand beside the others under that name.",
    "Omniglot: 5-way 5-shot. Lake's background alphabets are for training (a tenth of their "
    "characters for validation), his evaluation alphabets for judging. Images of 14 x 14 become 48 "
    "principal components, so that every method can read them. There are 5 query rows a class, and "
    "as many of 5 classes that are not in the episode; predictive entropy tells the two apart.",
    "Without data (and with --budget full) the classes are normal in 8 dimensions, where the "
    "posterior is exact.",
    "Sine or line: 5 rows, noise 0.3; its exact posterior keeps the 256 heaviest components for "
    "quantiles and CRPS. Gaussian process: 0 to 10 rows, noise 0.05, length 0.25.",
    "Standard errors of pooled figures: 100 resamples of the tasks.",
    "Binned errors are above 0 even for right probabilities. So beside each stands what is "
    "expected were the method calibrated: the mean over 50 sets of labels drawn from its own "
    "probabilities. What is above that is miscalibration.",
    "“knows nothing” gives each class the same probability, and its figures follow from that. "
    "Omniglot has no exact posterior.",
)

PAPERS = (
    'Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017',
    'Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019',
    'Kuleshov, Fenner & Ermon, "Accurate Uncertainties for Deep Learning Using Calibrated '
    'Regression", ICML 2018',
    'Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007',
)
METRICS = {
    "nll": Metric("NLL", "nats a row", "low"),
    "accuracy": Metric("accuracy", "share of rows", "high"),
    **_binned_metrics(),
    "brier": Metric("Brier score", "squared, summed over classes", "low"),
    "entropy_in": Metric("entropy in the episode", "nats", None),
    "entropy_out": Metric("entropy of other classes", "nats", None),
    "auroc": Metric("AUROC of other classes", "by predictive entropy", "high"),
    "calibration": Metric("calibration error", "mean gap over 20 quantile levels", "low"),
    "calibration_rms": Metric(
        "calibration error, rms", "root mean square gap over 20 quantile levels", "low"
    ),
    "coverage90": Metric("coverage of 90 % intervals", "share of rows", 0.9),
    "width90": Metric("width of 90 % intervals", "units of y", None),
    "interval90": Metric("interval score, 90 %", "units of y", "low"),
    "crps": Metric("CRPS", "units of y", "low"),
}
BUDGETS = {
    "quick": {
        "steps": {"numbers": 1_000, "classes": 600},
        "tasks": 150,
        "samples": 32,
        "temperature": False,
        "blobs": False,
    },
    "full": {
        "steps": {"numbers": 20_000, "classes": 20_000},
        "tasks": 1_000,
        "samples": 128,
        "temperature": False,
        "blobs": True,
    },
}

PROTOCOL = Protocol(
    name="reliability",
    title="Do stated probabilities come true?",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "abml", "platipus"),
    able=able("numbers", "classes", but=("ensemble", "stack", "nuts", "bnn")),
    budgets=BUDGETS,
    without={
        **dict.fromkeys(
            ("protonet", "matching", "metaqda"), "predict classes alone, and both are judged"
        ),
        **dict.fromkeys(("alpaca", "gnp", "agnp"), "predict numbers alone, and both are judged"),
        "ensemble": "several emaml, which runs by itself",
        **dict.fromkeys(
            ("nuts", "bnn"), "fit weights for each task, of which there are many hundreds"
        ),
    },
    run=run,
    draw=draw,
    references=(EXACT,),
    anchors=tuple(
        Anchor("knows nothing", setting, metric, value, _NOTHING)
        for setting in (CHARACTERS, BLOBS)
        for metric, value in _UNIFORM.items()
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)

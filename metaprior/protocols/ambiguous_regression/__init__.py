"""A sine wave or a line: do drawn functions hold both explanations, as often as they should?"""

from metaprior.methods import METHODS
from metaprior.protocols.ambiguous_regression.judge import EXACT, POINTWISE, PRIOR, run
from metaprior.protocols.ambiguous_regression.pictures import draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

_G8 = "Enumerated over both families on a fine grid, 500 other tasks; NLL of noisy query rows."

LEAD = (
    "The toss of a coin makes a task a sine wave or a line, seen with noise of standard deviation "
    "0.3. One or two rows often leave both open. A posterior over functions should then draw both, "
    "each as often as it is probable, and every draw should be one of them. A mixture density at "
    "each point has the right marginals but no functions."
)
CHOICES = (
    "Ranges: amplitude 0.1 to 5, phase 0 to π, slope and intercept -3 to 3, x -5 to 5, as in the "
    "published code.",
    "Methods are trained on 1 to 5 support rows and 10 query rows, with their default settings. "
    "With 5 rows, as in the paper, only 2 % of the tasks are ambiguous. So read the coverage at 1, "
    "2 and 3 rows.",
    "A task is ambiguous when the exact probability of the sine wave is between 0.1 and 0.9.",
    "A drawn function belongs to the family that is nearer by least squares on 64 points of "
    "[-5, 5]. What is left must be at most 0.6 (twice the noise) or 45 % of the function's own "
    "standard deviation (R² of 0.8). Otherwise the function belongs to neither family.",
    "A drawn function counts only if it fits the rows that were shown: the squares of its "
    "distances from them, in units of the noise, sum to no more than in 99 % of the true "
    "functions. A task is covered where at least half of the draws fit, and both families are "
    "among them. “prior draws” ignores the rows: what it reaches says nothing of a posterior.",
    "Functions are the means of coherent draws. A mixture head at each point has no functions: an "
    "outcome drawn at every point stands in for them.",
    "NLL is minus the log of the mean density over draws, in nats a query row. Joint NLL is of all "
    "20 query rows together, divided by 20.",
)

PAPERS = (
    'Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018, section 5',
)
METRICS = {
    "coverage": Metric(
        "mode coverage",
        "share of ambiguous tasks whose draws fit the rows and hold both families",
        "high",
    ),
    "frequency": Metric(
        "frequency error",
        "mean |share of draws that fit and are sine waves - exact probability|, ambiguous tasks",
        "low",
    ),
    "fits": Metric("draws that fit the rows", "share of all draws", "high"),
    "nll": Metric("marginal NLL", "nats a row", "low"),
    "joint": Metric("joint NLL", "nats a row", "low"),
    "mse": Metric("MSE of the mean", "squared units of y", "low"),
    "incoherent": Metric("draws near neither family, or off the rows", "share of all draws", "low"),
}
BUDGETS = {
    "quick": {
        "steps": 3_000,
        "tasks": 200,
        "slow_tasks": 20,
        "shots": [1, 2, 3, 5],
        "draws": 50,
        "samples": 64,
    },
    "full": {
        "steps": 20_000,
        "tasks": 1_000,
        "slow_tasks": 50,
        "shots": [1, 2, 3, 5],
        "draws": 50,
        "samples": 256,
    },
}

PROTOCOL = Protocol(
    name="ambiguous-regression",
    title="A sine wave or a line",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "platipus", "np"),
    able=able("numbers", but=("ensemble", "stack"), inputs=1) if METHODS else (),
    budgets=BUDGETS,
    without={"ensemble": "several emaml, which runs by itself"},
    run=run,
    draw=draw,
    references=(EXACT, PRIOR, POINTWISE),
    anchors=tuple(
        Anchor("exact, computed before", f"K = {k}", metric, value, _G8)
        for metric, values in {"nll": (1.845, 1.004, 0.620, 0.454)}.items()
        for k, value in zip((1, 2, 3, 5), values)
    ),
    sentence=sentence,
)

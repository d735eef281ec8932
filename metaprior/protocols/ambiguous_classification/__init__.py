"""Which circle? Classification in the plane, where the exact posterior is known."""

from metaprior.protocols.ambiguous_classification.judge import SETS, run
from metaprior.protocols.ambiguous_classification.pictures import draw, sentence
from metaprior.protocols.protocol import Metric, Protocol, able

LEAD = (
    "A circle in the plane is hidden. A task shows one to five points inside it, and nothing else. "
    "Many circles explain these points. Each method draws functions from its posterior. Their "
    "decision boundaries stand beside those of the exact posterior over centre and radius, and "
    "their likelihoods are compared with the exact ones."
)
CHOICES = (
    "The paper prints no ranges. Here the centre is uniform in the box [0, 5]² and the radius is "
    "uniform in [0.1, 2]. Support points are uniform in the part of the disc inside the box, and "
    "all have label 1. Query points are uniform in the box.",
    "One query label in a hundred is wrong, in training and in the test. The likelihoods of the "
    "exact posterior are then finite.",
    "Training shows 1 to 5 points. Each number of points is judged on its own tasks, which are the "
    "same for all methods and seeds.",
    "NLL: minus the log of the mean probability over draws of the function (100 draws in quick, "
    "256 in full), each label by itself. Joint NLL: of all 20 labels of a task together, divided "
    "by 20. A finite number of draws overstates the joint NLL a little.",
    "All settings are the table's defaults.",
    f"Coverage: the share of tasks in which at least one of {SETS} sampled sets {{p > 1/2}} "
    "overlaps the true disc with an intersection over union of 0.5 or more, on a 40 x 40 grid. A "
    "method of one function has one set.",
    "Spread: the area on which two sampled sets disagree, averaged over pairs and tasks, divided "
    "by that of the exact posterior. 1 is right; 0 means a single function.",
)

PAPERS = (
    "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018, section 5",
)
METRICS = {
    "nll": Metric("NLL", "nats a row", "low"),
    "gap": Metric("NLL above exact", "nats a row", "low"),
    "joint": Metric("joint NLL", "nats a row", "low"),
    "joint_gap": Metric("joint NLL above exact", "nats a row", "low"),
    "accuracy": Metric("accuracy", "share of rows", "high"),
    "coverage": Metric("coverage", "share of tasks", "high"),
    "best_iou": Metric("best overlap", f"IoU, best of {SETS}", "high"),
    "spread": Metric("spread", "of the exact posterior's", 1.0),
}
BUDGETS = {
    "quick": {
        "steps": {"": 1500, "maml": 3000, "platipus": 1000},
        "batch": 16,
        "tasks": 150,
        "samples": 100,
    },
    "full": {"steps": {"": 30000}, "batch": 25, "tasks": 1000, "samples": 256},
}

PROTOCOL = Protocol(
    name="ambiguous-classification",
    title="Which circle? Classification from a few points of one class",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "platipus", "np"),
    able=able("classes"),
    budgets=BUDGETS,
    run=run,
    draw=draw,
    references=("exact",),
    sentence=sentence,
)

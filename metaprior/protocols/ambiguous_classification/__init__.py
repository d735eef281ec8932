"""Ambiguous classification: circles in the plane from a few points inside, beside the exact
posterior.
"""

from metaprior.protocols.ambiguous_classification.judge import MAML_RATE, MAML_STEPS, SETS, run
from metaprior.protocols.ambiguous_classification.pictures import draw, sentence
from metaprior.protocols.protocol import Metric, Protocol, able

PROTOCOL = Protocol(
    name="ambiguous-classification",
    title="Which circle? Classification from a few points of one class",
    lead="Points of the plane are inside or outside of an unknown circle; a task shows one to five points inside it "
    "and nothing else. Many circles explain them. Each method draws functions from its posterior; their decision "
    "boundaries stand beside those of the exact posterior over centre and radius, and its likelihoods are the "
    "yardstick.",
    papers=(
        "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018, section 5",
    ),
    choices=(
        "The paper prints no ranges. Here: centre uniform in the box [0, 5]², radius uniform in [0.1, 2], support "
        "points uniform in the part of the disc inside the box, all labelled 1; query points uniform in the box.",
        "One query label in a hundred is wrong, in training and test, so that the exact posterior's likelihoods are "
        "finite.",
        "Training shows 1 to 5 points; each number is judged on tasks of its own, the same for all methods and seeds.",
        "NLL: minus the log of the mean probability over draws of the function (100 in quick, 256 in full), each "
        "label by itself; joint: of all 20 labels of a task together, per label. With finitely many draws the joint "
        "one is overstated a little.",
        f"MAML (and EMAML) take {MAML_STEPS} inner steps of a learned rate from {MAML_RATE}; all else are the table's "
        "defaults.",
        f"Coverage: share of tasks in which at least one of {SETS} sampled sets {{p > 1/2}} overlaps the true disc "
        "with an intersection over union of 0.5 or more, on a 40 x 40 grid. Methods of one function have one set.",
        "Spread: area on which two sampled sets disagree, mean over pairs and tasks, over that of the exact "
        "posterior; 1 is right, 0 is one function.",
    ),
    metrics={
        "nll": Metric("NLL", "nats a row", "low"),
        "gap": Metric("NLL above exact", "nats a row", "low"),
        "joint": Metric("joint NLL", "nats a row", "low"),
        "joint_gap": Metric("joint NLL above exact", "nats a row", "low"),
        "accuracy": Metric("accuracy", "share of rows", "high"),
        "coverage": Metric("coverage", "share of tasks", "high"),
        "best_iou": Metric("best overlap", f"IoU, best of {SETS}", "high"),
        "spread": Metric("spread", "of the exact posterior's", 1.0),
    },
    methods=("maml", "platipus", "np"),
    able=able("classes"),
    budgets={
        "quick": {
            "steps": {"": 1500, "maml": 3000, "platipus": 1000},
            "batch": 16,
            "tasks": 150,
            "samples": 100,
        },
        "full": {"steps": {"": 30000}, "batch": 25, "tasks": 1000, "samples": 256},
    },
    run=run,
    draw=draw,
    references=("exact",),
    sentence=sentence,
)

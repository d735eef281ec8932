"""Learning to actively learn: what to ask, and where to look next."""

from metaprior.protocols.few_shot_images import data as images
from metaprior.protocols.learned_acquisition.judge import PARTS, draw, load, run, sentence
from metaprior.protocols.protocol import Protocol, able

LEAD = (
    "Rules such as entropy choose what to ask by one fixed formula. Here choosing itself is "
    "learned from many tasks. A stream of images must be answered or asked about; a source must be "
    "found with few readings; points of a checkerboard are labelled, and rows of a task observed, "
    "by what their labels were worth in other tasks. Beside each learned policy stand the exact "
    "rules: what a calibrated posterior gives without any learning of that kind."
)
PAPERS = (
    'Woodward & Finn, "Active One-shot Learning", NeurIPS deep reinforcement learning workshop '
    "2016",
    'Bachman, Sordoni & Trischler, "Learning Algorithms for Active Learning", ICML 2017',
    'Konyushkova, Sznitman & Fua, "Learning Active Learning from Data", NeurIPS 2017',
    'Foster, Ivanova, Malik & Rainforth, "Deep Adaptive Design: Amortizing Sequential Bayesian '
    'Experimental Design", ICML 2021',
    'Huang et al., "ALINE: Joint Amortization for Bayesian Inference and Active Data Acquisition", '
    "NeurIPS 2025",
)
# `--set parts=stream,location` runs some of the parts.
BUDGETS = {
    budget: {"parts": "all"} | {name: part.budgets[budget] for name, part in PARTS.items()}
    for budget in ("quick", "full")
}
# They compare an image with labelled ones, and have a probability for a class that has none yet.
ABLE = ("protonet", "matching", "metaqda")

PROTOCOL = Protocol(
    name="learned-acquisition",
    title="Learning what to ask",
    lead=LEAD,
    papers=PAPERS,
    choices=tuple(choice for part in PARTS.values() for choice in part.choices),
    metrics={name: metric for part in PARTS.values() for name, metric in part.metrics.items()},
    methods=("matching",),
    able=ABLE,
    budgets=BUDGETS,
    without={
        name: "not fitted to classes of images that may have no label yet"
        for name in able("classes", but=ABLE)
    },
    run=run,
    draw=draw,
    references=tuple(dict.fromkeys(name for part in PARTS.values() for name in part.references)),
    anchors=tuple(anchor for part in PARTS.values() for anchor in part.anchors),
    load=load,
    reads=images.reads,
    sentence=sentence,
)

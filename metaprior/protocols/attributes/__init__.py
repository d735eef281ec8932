"""Ambiguous faces: positives share three attributes, of which a pair is meant."""

from metaprior.protocols.attributes.controls import CONTROLS
from metaprior.protocols.attributes.data import load, reads
from metaprior.protocols.attributes.features import FEATURES
from metaprior.protocols.attributes.judge import DRAWS, KNOWN, run
from metaprior.protocols.attributes.pictures import PUBLISHED, draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

_PAPER = "Finn, Xu & Levine 2018, table 1, recalled; CelebA, number of draws not stated"


def _anchors() -> tuple[Anchor, ...]:
    """The paper's table, and what fair choices of a pair would cover."""
    anchors = []
    for name, values in PUBLISHED.items():
        for metric, value in values.items():
            anchors.append(Anchor(f"{name} on CelebA", "", metric, value, _PAPER))
    fair = 3 * (1 - (2 / 3) ** DRAWS)
    how = "exact: 3 (1 - (2/3)^10)"
    return (*anchors, Anchor("ten fair choices of a pair", "", "coverage", fair, how))


LEAD = (
    "Five images are positives and share three attributes. Five are negatives and have none of "
    "them. The concept that is asked about is a pair of the three, and nothing shown says which: "
    "three concepts are right. Ten classifiers are drawn from each method's posterior. A method "
    "that knows what it does not know draws classifiers of all three concepts, each of them "
    "accurate. A method of one function can mean one of them at best."
)
CHOICES = (
    "Attributes may be negated. A signed triple is three attributes, each wanted or unwanted: 32 "
    "for the four attributes of the avatars, and at most 400, taken at random. Triples are split "
    "at random, 5 in 8 for training, 1 for validation, 2 for the test. A triple and its opposite, "
    "which exchanges the labels, stay together. A pair of a held-out triple may have been met in "
    "training with another third attribute.",
    "Images are split too: 60 % of the distinct ones for training, 15 % for validation, 25 % for "
    "the test. Copies are left out. Settings were chosen on validation images and triples.",
    "A pair's query has 10 positives, which have both attributes of the pair, whatever the third, "
    "and 10 negatives, which lack one or both. Each is drawn evenly from all such images that the "
    "support does not hold. Training asks one pair at random.",
    "Coverage, accuracy and NLL are the paper's. Each classifier belongs to the concept whose "
    "query labels are likeliest under it. A concept is covered when a classifier belongs to it. "
    "Accuracy and NLL are taken of the likeliest classifier of each covered concept on its query, "
    "so they favour methods with more classifiers a little. The paper does not state the number "
    "of draws; here it is ten. Methods of a few functions use all they have, and a note says so.",
    "Marginal NLL: minus the log of the classifiers' mean probability, over the queries of all "
    "three concepts. It is what the mixture says of one label when the concept cannot be known.",
    f"All methods of a seed see the same {FEATURES} features of an image: the last hidden layer "
    "of a convolutional network, trained to name the attributes of the training images and then "
    "fixed. Methods then differ in what they make of ambiguity, not in how well they see. The "
    "paper trains a convolutional network with each method.",
    f"“{KNOWN}” is no method: it reads the true attributes and takes each pair to be as likely.",
    "Three controls learn nothing from other episodes: a logistic regression on the features; ten, "
    "each on a random half of them; and ten along one random direction each. The last covers many "
    "concepts and is often wrong: coverage alone is no merit. So the sentence names the method "
    "with the best marginal NLL, and the coverage of those that are nearly as accurate as any.",
    "PLATIPUS and BMAML learn an inner rate, starting from 0.1 and 0.3. PLATIPUS "
    "starts from a standard deviation of 0.2: with its own 0.02, two draws hardly differ "
    "(coverage 1.3 on validation episodes). Neural processes have the encoder of the paper (deep "
    "set). All other settings are the table's defaults. Black boxes remember training triples: on "
    "validation triples the neural process covers more concepts than MAML and is right less "
    "often.",
)

PAPERS = (
    "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018, section "
    "6, table 1",
)
METRICS = {
    "accuracy": Metric("accuracy", "% of labels", "high"),
    "coverage": Metric("coverage", "of 3 concepts", "high"),
    "nll": Metric("NLL of the covered concepts", "nats a label", "low"),
    "marginal": Metric("marginal NLL", "nats a label", "low"),
}
BUDGETS = {
    "quick": {
        "steps": {"": 1000, "platipus": 400, "bmaml": 300},
        "batch": 16,
        "tasks": 200,
        "feature_steps": 400,
    },
    "full": {"steps": {"": 20000}, "batch": 25, "tasks": 1000, "feature_steps": 2000},
}

PROTOCOL = Protocol(
    name="attributes",
    title="Ambiguous faces: which two of three attributes are meant?",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "platipus", "versa"),
    able=able("classes", but=("nuts", "stack")),  # NUTS would take hours an episode
    budgets=BUDGETS,
    without={"nuts": "hours an episode"},
    run=run,
    draw=draw,
    references=(KNOWN, *CONTROLS),
    anchors=_anchors(),
    load=load,
    reads=reads,
    sentence=sentence,
)

"""Ambiguous faces: positives share three attributes, of which a pair is meant."""

from metaprior.protocols.attributes.data import FILE, load
from metaprior.protocols.attributes.features import FEATURES
from metaprior.protocols.attributes.judge import KNOWN, run
from metaprior.protocols.attributes.pictures import draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able, inside

_PAPER = "Finn, Xu & Levine 2018, table 1, recalled; CelebA, number of draws not stated"


def _anchor(name: str, accuracy: float, coverage: float, nll: float) -> list[Anchor]:
    values = {"accuracy": accuracy, "coverage": coverage, "nll": nll}
    return [Anchor(name, "", metric, value, _PAPER) for metric, value in values.items()]


ANCHORS = (
    *_anchor("MAML on CelebA", 89.0, 1.0, 0.73),
    *_anchor("MAML + noise on CelebA", 84.3, 1.89, 0.68),
    *_anchor("PLATIPUS (KL 0.05) on CelebA", 88.34, 1.59, 0.67),
    *_anchor("PLATIPUS (KL 0.15) on CelebA", 87.8, 1.94, 0.56),
    Anchor(
        "ten fair choices of a pair",
        "",
        "coverage",
        3 * (1 - (2 / 3) ** 10),
        "exact: 3 (1 - (2/3)^10)",
    ),
)


PROTOCOL = Protocol(
    name="attributes",
    title="Ambiguous faces: which two of three attributes are meant?",
    lead="Five faces are positives and share three attributes; five are negatives and have none of them. The concept that is "
    "asked about is a pair of the three, and nothing shown says which: three concepts are right. Ten classifiers are drawn "
    "from each method's posterior; a method that knows what it does not know draws classifiers of all three concepts, each "
    "of them accurate. A method of one function can mean one of them at best.",
    papers=(
        "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018, section 6, table 1",
    ),
    choices=(
        "Attributes may be negated: a signed triple is three attributes, each wanted or unwanted (32 for the four attributes of "
        "the avatars; at most 400, taken at random). Triples are split at random, 5 in 8 for training, 1 for "
        "validation, 2 for test; one and its opposite, the same with the labels exchanged, stay together. A pair of a held-out "
        "triple may have been met in training with another third attribute.",
        "Images are split too: 60 % of the distinct ones for training, 15 % for validation, 25 % for test. Copies are left out. "
        "Settings were chosen on validation images and triples.",
        "A pair's query: 10 positives, which have both attributes of the pair, whatever the third; 10 negatives, which lack one "
        "or both; each drawn evenly from all such images that the support does not hold. Training asks one pair at random.",
        "Coverage, accuracy and NLL are the paper's: each classifier belongs to the concept under whose query labels its "
        "likelihood is highest; a concept is covered when a classifier belongs to it; accuracy and NLL are those of the "
        "likeliest classifier of each covered concept on its query, so they favour methods with more classifiers a little. The "
        "paper does not state the number of draws: ten here. Methods of a few functions have these (noted beside them).",
        "Marginal NLL is minus the log of the classifiers' mean probability, over the queries of all three concepts: what the "
        "mixture says of one label when it cannot know the concept.",
        f"All methods of a seed see the same {FEATURES} features of an image: the last hidden layer of a convolutional network "
        "trained to name the attributes of the training images, then fixed. What differs between methods is what they make of "
        "ambiguity, not how well they see. The paper trains a convolutional network with each method.",
        f"“{KNOWN}” is no method: it reads the true attributes and takes each pair to be as likely.",
        "MAML, PLATIPUS and BMAML learn an inner rate from 0.1, 0.1 and 0.3; PLATIPUS starts from a standard deviation of 0.2, "
        "since its own 0.02 hardly lets two draws differ (coverage 1.3 on validation episodes); neural processes have the encoder "
        "of the paper (deep set); all else are the table's defaults. Black boxes remember training triples: on "
        "validation triples the neural process covers more concepts and is right less often than MAML.",
    ),
    metrics={
        "accuracy": Metric("accuracy", "% of labels", "high"),
        "coverage": Metric("coverage", "of 3 concepts", "high"),
        "nll": Metric("NLL of the covered concepts", "nats a label", "low"),
        "marginal": Metric("marginal NLL", "nats a label", "low"),
    },
    methods=("maml", "platipus", "versa"),
    able=able("classes", but=("nuts", "stack")),  # NUTS would take hours an episode
    budgets={
        "quick": {
            "steps": {"": 1000, "platipus": 400, "bmaml": 300},
            "batch": 16,
            "tasks": 200,
            "feature_steps": 400,
        },
        "full": {"steps": {"": 20000}, "batch": 25, "tasks": 1000, "feature_steps": 2000},
    },
    without={"nuts": "hours an episode"},
    run=run,
    draw=draw,
    references=(KNOWN,),
    anchors=ANCHORS,
    load=load,
    reads=lambda path: [inside(path, FILE)],
    sentence=sentence,
)

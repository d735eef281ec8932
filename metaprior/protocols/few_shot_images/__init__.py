"""A class from one or a few images: Omniglot, Lake's one-shot runs, or folders of your own."""

from metaprior.protocols.few_shot_images.controls import CONTROLS
from metaprior.protocols.few_shot_images.data import Pictures, load, reads
from metaprior.protocols.few_shot_images.judge import GUESSING, HAUSDORFF, run, run_of, title
from metaprior.protocols.few_shot_images.pictures import PUBLISHED, draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

_LAKE = "Lake, Salakhutdinov & Tenenbaum, Science 2015"
_LATER = "recalled: Lake et al. 2019, table 1"
_SNELL = (
    "Snell et al. 2017, table 1: 60-way training, 1200 characters; here the later split of 1028, "
    "172 and 423"
)
_VINYALS = "Vinyals et al. 2016, table 1, no fine-tuning"
_FINN = "recalled: Finn et al. 2017, table 1"
# Accuracy on Omniglot in each of these settings.
_SETTINGS = ((5, 1), (5, 5), (20, 1), (20, 5))
_ACCURACY = {
    "ProtoNet (Snell et al. 2017)": (_SNELL, (0.988, 0.997, 0.960, 0.989)),
    "Matching Nets (Vinyals et al. 2016)": (_VINYALS, (0.981, 0.989, 0.938, 0.985)),
    "MAML (Finn et al. 2017)": (_FINN, (0.987, 0.999, 0.958, 0.989)),
}


def _anchors() -> tuple[Anchor, ...]:
    """Published errors of Lake's runs, and published accuracies on Omniglot."""
    anchors = []
    for background, errors in PUBLISHED.items():
        for name, value in errors.items():
            whose = f"{name} (Lake et al. 2015)"
            anchors.append(Anchor(whose, run_of(background), "error", value, _LAKE))
    later = "ProtoNet (Lake et al. 2019)"
    anchors.append(Anchor(later, run_of("original"), "error", 0.137, _LATER))
    for name, (source, values) in _ACCURACY.items():
        for setting, value in zip(_SETTINGS, values):
            where = f"Omniglot, {title(*setting)}"
            anchors.append(Anchor(name, where, "accuracy", value, source))
    return tuple(anchors)


def lead(data: Pictures | None) -> str:
    """What is shown, on these images."""
    said = (
        "A task shows one or five images of each of a few classes that were never seen in "
        "training, and asks which class further images belong to."
    )
    if data is None or data.runs is not None:
        return said + (
            " Episodes of Omniglot characters are nearly solved. Lake's twenty runs, each with one "
            "alphabet and two drawers, are not, least of all after training on five alphabets."
        )
    count = {name: len(part) for name, part in data.parts.items()}
    return said + (
        f" Here these are images of {data.name}: {count['train']} classes to learn from, "
        f"{count['test']} others to be judged on. Few classes say little: look at the errors."
    )


CHOICES = (
    "Episodes of Omniglot mix characters of all alphabets, split 1028, 172 and 423 (Vinyals). "
    "Characters turned by 90, 180 and 270 degrees are further classes, in training and in the "
    "test. Images are 28 x 28 pixels, by averages over boxes. Classes of your own folders are "
    "split as the notes say. They are not turned, unless rotate_own=true makes turned classes "
    "further classes there as well.",
    "Network: Conv4 with 32, 64, 64 and 64 filters. Groups are normalised over each image by "
    "itself, with no statistics of a batch, so that query images do not see one another. quick "
    "halves images by strides, full by max-pools. net=resnet12 takes ResNet-12 (64, 160, 320 and "
    "640 filters) instead. Images of your own are at most 28 pixels a side where most are grey, 84 "
    "where they are not, and 32 in quick; size=N makes all N.",
    "quick trains one network on 20-way 1-shot tasks and uses it for every setting; full trains "
    "one for each number of classes. Five shots are given to the network that was trained with "
    "one. Labels are then some of the network's classes, and probabilities are those of the "
    "classes that the support shows, renormalised.",
    "The step is chosen by accuracy on held-out classes. These are the validation classes, where "
    "there are any; for Lake's runs an eighth of the background characters, which are left out of "
    "the training. The runs are judged once, at the end.",
    "For Lake's runs half of the training tasks are within one alphabet, and images are turned, "
    "sheared, scaled and moved a little at random (Koch et al. 2015). There is no ensemble and "
    "nothing at test time. Each of a run's 20 drawings is classified by itself.",
    "ECE: most probable class, 15 equal bins, rows of all tasks pooled, no temperature. Its "
    "standard error is a bootstrap over tasks. Beside it stands what is expected were the method "
    "calibrated: labels drawn from its own probabilities, 50 times.",
    "Three controls see pixels alone and learn nothing but a scale (on the held-out classes): the "
    "class of the nearest image; the class whose mean image has the largest cosine with it, both "
    "less the mean training image; and a logistic regression for each task. A method that does not "
    "beat them has learned nothing.",
    "Tasks share classes, and few classes say little, however many tasks they make. Standard "
    "errors are therefore also taken by leaving out one test class after the other with all its "
    "tasks, and the larger one is stated. Where the data give no split, each seed has its own.",
    "“guessing” gives every class the same probability: exact, with any images.",
    "A network with an inner loop trains for fewer steps (MAML 40 %, others 10 to 20 %), because "
    "its steps cost more.",
)

PAPERS = (
    'Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, "Matching Networks for One Shot '
    'Learning", NeurIPS 2016',
    'Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017',
    'Lake, Salakhutdinov & Tenenbaum, "Human-Level Concept Learning through Probabilistic '
    'Program Induction", Science 2015',
    'Lake, Salakhutdinov & Tenenbaum, "The Omniglot Challenge: a 3-Year Progress Report", 2019',
)
METRICS = {
    "accuracy": Metric("accuracy", "share of query images", "high"),
    "error": Metric("error", "share of the 400 drawings of the runs", "low"),
    "nll": Metric("NLL", "nats an image", "low"),
    "ece": Metric("ECE", "mean |stated - came true|", "low"),
    "ece_calibrated": Metric(
        "ECE, were it calibrated",
        "expected of as many images, labels drawn from its own probabilities",
        None,
    ),
}
BUDGETS = {
    "quick": {
        "steps": 500,
        "affine": 0.0,
        "lake_steps": 250,
        "every_way": False,
        "rotate_own": False,
        "backgrounds": ["small1", "small2"],
        "net": "conv4",
        "filters": [32, 64, 64, 64],
        "pooled": False,
        "size": 0,
        "side": 32,
        "batch": 1,
        "learning_rate": 2e-3,
        "train_query": 3,
        "validation": 20,
        "tasks": 100,
        "query": 2,
        "samples": 10,
    },
    "full": {
        "steps": 10_000,
        "affine": 0.0,
        "lake_steps": 4000,
        "every_way": True,
        "rotate_own": False,
        "backgrounds": ["original", "small1", "small2"],
        "net": "conv4",
        "filters": [32, 64, 64, 64],
        "pooled": True,
        "size": 0,
        "side": 84,
        "batch": 1,
        "learning_rate": 2e-3,
        "train_query": 4,
        "validation": 40,
        "tasks": 600,
        "query": 5,
        "samples": 32,
    },
}

PROTOCOL = Protocol(
    name="few-shot-images",
    title="A class from one image",
    lead=lead,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("protonet", "maml", "versa"),
    able=able("classes", but=("ar_cnp", "ensemble", "stack", "process", "nuts", "bnn")),
    budgets=BUDGETS,
    without={
        "ar_cnp": "a pass of the network an image",
        "ensemble": "several emaml, which runs by itself",
        "process": "reads columns of a table by kernels, without a network for images",
        **dict.fromkeys(
            ("nuts", "bnn"), "fit all weights of a convolutional network for each task"
        ),
    },
    run=run,
    draw=draw,
    references=(GUESSING, HAUSDORFF, *CONTROLS),
    anchors=_anchors(),
    load=load,
    reads=reads,
    sentence=sentence,
)

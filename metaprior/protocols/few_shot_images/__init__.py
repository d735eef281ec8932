"""Classes from one or a few images: Omniglot's episodes, Lake's one-shot runs, or a user's own
folders.
"""

from metaprior.protocols.few_shot_images.data import load, reads
from metaprior.protocols.few_shot_images.judge import HAUSDORFF, run, title
from metaprior.protocols.few_shot_images.pictures import GUESSING, draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

_LAKE = "Lake, Salakhutdinov & Tenenbaum, Science 2015"


_SNELL = "Snell et al. 2017, table 1: 60-way training, 1200 characters; here the later split of 1028, 172 and 423"


_RUNS = {
    ("people", "original"): 0.045,
    ("Bayesian program learning", "original"): 0.033,
    ("convolutional network", "original"): 0.135,
    ("hierarchical deep model", "original"): 0.348,
    ("Bayesian program learning", "small1"): 0.043,
    ("Bayesian program learning", "small2"): 0.040,
    ("convolutional network", "small1"): 0.240,
    ("convolutional network", "small2"): 0.223,
    ("modified Hausdorff distance", "no background"): 0.388,
    ("Bayesian program learning", "mean of small1 and small2"): 0.042,
    ("convolutional network", "mean of small1 and small2"): 0.232,
}


_ROWS = {
    "ProtoNet (Snell et al. 2017)": ((0.988, 0.997, 0.960, 0.989), _SNELL),
    "Matching Nets (Vinyals et al. 2016)": (
        (0.981, 0.989, 0.938, 0.985),
        "Vinyals et al. 2016, table 1, no fine-tuning",
    ),
    "MAML (Finn et al. 2017)": (
        (0.987, 0.999, 0.958, 0.989),
        "recalled: Finn et al. 2017, table 1",
    ),
}


PROTOCOL = Protocol(
    name="few-shot-images",
    title="A class from one image",
    lead=(
        "A task shows one or five images of each of a few classes that were never seen in training, and asks which class "
        "further images are of. Episodes of Omniglot characters are nearly solved; Lake's twenty runs, one alphabet and "
        "two drawers each, are not, least of all after training on five alphabets. With --data the same is done "
        "for your own folders of images, one folder a class."
    ),
    papers=(
        'Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, "Matching Networks for One Shot Learning", NeurIPS 2016',
        'Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017',
        'Lake, Salakhutdinov & Tenenbaum, "Human-Level Concept Learning through Probabilistic Program Induction", Science 2015',
        'Lake, Salakhutdinov & Tenenbaum, "The Omniglot Challenge: a 3-Year Progress Report", 2019',
    ),
    choices=(
        "Episodes of Omniglot: characters of all alphabets together, split 1028, 172 and 423 (Vinyals), turned by 90, 180 and 270 "
        "degrees as further classes, in training and in the test; 28 x 28 pixels by averages over boxes. Of your own folders: "
        "classes split as the notes say, never turned unless rotate_own=true is set, which makes turned classes further classes "
        "there as well.",
        "Network: Conv4 with 32, 64, 64 and 64 filters and group normalisation over each image by itself: no statistics of a batch, so that query "
        "images do not see one another. quick halves images by strides, full by max-pools.",
        "quick trains one network on 20-way 1-shot tasks and uses it for every setting, full one for each number of classes; five shots "
        "are given to the network that was trained with one. Labels are then some of the network's classes, and "
        "probabilities those of the classes that the support shows, renormalised.",
        "The step is chosen on held-out classes: those for validation, where there are any; for Lake's runs an eighth of the background "
        "characters, which are left out of the training. The runs are judged once, at the end.",
        "For Lake's runs half of the training tasks are within one alphabet, and images are turned, sheared, scaled and "
        "moved a little at random (Koch et al. 2015). No ensemble, nothing at test time; each of a run's 20 drawings is "
        "classified by itself.",
        "ECE: most probable class, 15 equal bins, rows of all tasks pooled, no temperature; its standard error is a bootstrap over tasks. "
        "Beside it what is expected were the method calibrated: labels drawn from its own probabilities, 50 times.",
        "“guessing” gives every class the same probability: exact, with any images.",
        "A network with an inner loop trains for fewer steps (MAML 40 %, others 10 to 20 %), as its steps cost more.",
    ),
    metrics={
        "accuracy": Metric("accuracy", "share of query images", "high"),
        "error": Metric("error", "share of the 400 drawings of the runs", "low"),
        "nll": Metric("NLL", "nats an image", "low"),
        "ece": Metric("ECE", "mean |stated - came true|", "low"),
        "ece_calibrated": Metric(
            "ECE, were it calibrated",
            "expected of as many images, labels drawn from its own probabilities",
            None,
        ),
    },
    methods=("protonet", "maml", "versa"),
    able=able("classes", but=("ar_cnp", "ensemble", "stack", "process", "nuts", "bnn")),
    budgets={
        "quick": {
            "steps": 500,
            "affine": 0.0,
            "lake_steps": 250,
            "every_way": False,
            "rotate_own": False,
            "backgrounds": ["small1", "small2"],
            "filters": [32, 64, 64, 64],
            "pooled": False,
            "side": 32,
            "batch": 1,
            "learning_rate": 2e-3,
            "train_query": 3,
            "validation": 10,
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
            "filters": [32, 64, 64, 64],
            "pooled": True,
            "side": 84,
            "batch": 1,
            "learning_rate": 2e-3,
            "train_query": 4,
            "validation": 40,
            "tasks": 600,
            "query": 5,
            "samples": 32,
        },
    },
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
    references=(GUESSING, HAUSDORFF),
    anchors=(
        *(
            Anchor(f"{name} (Lake et al. 2015)", f"20 runs, {where}", "error", value, _LAKE)
            for (name, where), value in _RUNS.items()
        ),
        Anchor(
            "ProtoNet (Lake et al. 2019)",
            "20 runs, original",
            "error",
            0.137,
            "recalled: Lake et al. 2019, table 1",
        ),
        *(
            Anchor(name, f"Omniglot, {title(*at)}", "accuracy", value, source)
            for name, (values, source) in _ROWS.items()
            for at, value in zip(((5, 1), (5, 5), (20, 1), (20, 5)), values)
        ),
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)

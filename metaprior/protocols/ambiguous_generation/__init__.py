"""The side of an object that is not seen: one view is shown, the others are drawn."""

from metaprior.protocols.ambiguous_generation.data import load, reads
from metaprior.protocols.ambiguous_generation.judge import CONTROL, DRAWS, NEAR, SIDE, run
from metaprior.protocols.ambiguous_generation.pictures import draw, sentence
from metaprior.protocols.ambiguous_generation.smoothers import MEAN, NEAREST, RIDGE
from metaprior.protocols.protocol import Anchor, Metric, Protocol

_PAPER = "Gordon et al. 2019, table 3, recalled; ShapeNet, 12 classes, 500,000 steps"

LEAD = (
    "One view of an object that training never met is shown, and the others are to be drawn. "
    "Views from nearly the same side are all but determined. Views from a quarter turn away are "
    "not: they show depth and parts that were hidden. Draws from a posterior over objects should "
    "differ more there than near the view shown, and each draw should be one object from all "
    "sides. A deterministic method draws the average."
)
CHOICES = (
    "Objects are split 70 : 10 : 20 for training, validation and test. Objects of one name, or "
    "that look alike from all sides, stay together. Each seed splits anew. For every method the "
    "step that is best on validation objects is kept, and its standard deviation of a pixel is "
    "what suits them.",
    "x: sines and cosines of the azimuth and of its multiples to 4. y: grey pixels in 0 … 1, 16 x "
    "16 in quick and 32 x 32 in full, normal with one learned standard deviation a method. "
    "Networks are fully connected, 256 wide, of the same size for method and control.",
    "Each test object is shown once (quick) or several times (full), from a random side. There "
    f"are {DRAWS} draws. MSE and SSIM (11 x 11 Gaussian window) are of their mean. Best: the MSE "
    "of the draw nearest to the truth.",
    "Joint NLL: of all views of an object together, a pixel. Neural processes and C-VAE have a "
    "proposal that sees the answer. For them it is an importance-weighted bound from "
    f"{DRAWS} draws of the proposal and {DRAWS} of the prior, in expectation never better than the "
    "truth. For other methods it is the mixture of draws, which is also stated for all. Marginal "
    "NLL: view by view, under the mixture of draws.",
    "Diversity: root mean squared difference between two draws of a view. Near: within "
    f"{NEAR:.0f}° of the shown view. Aside: {SIDE[0]:.0f}° to {SIDE[1]:.0f}° away, where depth and "
    "hidden parts show; the back of most objects has the outline of the front. A deterministic "
    "method has 0.",
    "cnp is the deterministic control: the same encoder and decoder without a latent. “C-VAE” has "
    "a latent for each view, not for the object. It describes single views well, but its draws "
    "are incoherent, so its joint NLL is low only with a proposal that has seen every view. "
    "ensemble is four cnp, each one draw, with four times the "
    "parameters. The mean of many draws of one neural process has about the error of cnp.",
    "What costs nothing: “mean view” ignores what is shown. “ridge” is a linear regression of all "
    "pixels of a view on those of the view shown, “nearest objects” the average of the training "
    "objects that look most alike from the side shown; the penalty and the number of objects are "
    "those that are best on validation objects.",
)

PAPERS = (
    "Gordon, Bronskill, Bauer, Nowozin & Turner, “Meta-Learning Probabilistic Inference for "
    "Prediction”, ICLR 2019, 5.3",
    "Sohn, Lee & Yan, “Learning Structured Output Representation using Deep Conditional "
    "Generative Models”, NIPS 2015",
    "Wang, Bovik, Sheikh & Simoncelli, “Image Quality Assessment”, IEEE TIP 2004",
)
METRICS = {
    "mse": Metric("MSE of the mean", "squared grey level", "low"),
    "ssim": Metric("SSIM of the mean", "1 is the same", "high"),
    "joint": Metric("joint NLL", "nats a pixel", "low"),
    "mixture": Metric("joint NLL, mixture of draws", "nats a pixel", "low"),
    "marginal": Metric("marginal NLL", "nats a pixel", "low"),
    "best": Metric("best draw's MSE", "squared grey level", "low"),
    "near": Metric("diversity near", "grey level", None),
    "side": Metric("diversity aside", "grey level", None),
}
BUDGETS = {
    "quick": {
        "steps": {"": 6000, "ensemble": 3500},
        "batch": 16,
        "rate": 2e-3,
        "validation": 64,
        "shown": 1,
        "pool": 2,
    },
    "full": {
        "steps": {"": 30000},
        "batch": 24,
        "rate": 1e-3,
        "validation": 256,
        "shown": 4,
        "pool": 1,
    },
}

PROTOCOL = Protocol(
    name="ambiguous-generation",
    title="The side of an object that is not seen",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("cnp", "np", "ensemble"),
    able=("cnp", "acnp", "np", "anp", "flow_np", "maml", "versa", "alpaca", "ensemble"),
    budgets=BUDGETS,
    without={
        **dict.fromkeys(("recurrent", "snail"), "read rows in an order, which one view has not"),
        "tnp": "acnp of more layers, for which one view is too few",
        "ar_cnp": "feeds back whole images, a pass a view",
        **dict.fromkeys(
            ("maml_fixed", "emaml", "llama", "abml", "vampire", "bmaml", "platipus"),
            "inner loops on networks of hundreds of pixels, of which maml alone has settings here",
        ),
        **dict.fromkeys(
            ("dkt", "process", "pacoh", "f_pacoh"), "would be a Gaussian process for each pixel"
        ),
        **dict.fromkeys(
            ("nuts", "bnn", "pacoh_nn"), "fit all weights of a network of pixels for each object"
        ),
    },
    run=run,
    draw=draw,
    references=(MEAN, NEAREST, RIDGE, CONTROL),
    anchors=(
        Anchor("C-VAE on ShapeNet", "", "mse", 0.0269, _PAPER),
        Anchor("C-VAE on ShapeNet", "", "ssim", 0.5705, _PAPER),
        Anchor("VERSA on ShapeNet", "", "mse", 0.0108, _PAPER),
        Anchor("VERSA on ShapeNet", "", "ssim", 0.7893, _PAPER),
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)

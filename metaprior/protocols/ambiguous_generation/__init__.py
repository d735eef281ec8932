"""One view of an object is shown, the others are to be drawn."""

from metaprior.protocols.ambiguous_generation.data import FILE, load
from metaprior.protocols.ambiguous_generation.judge import DRAWS, NEAR, SIDE, run
from metaprior.protocols.ambiguous_generation.pictures import CONTROL, MEAN, draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, inside

_PAPER = "Gordon et al. 2019, table 3, recalled; ShapeNet, 12 classes, 500,000 steps"


PROTOCOL = Protocol(
    name="ambiguous-generation",
    title="The side of an object that is not seen",
    lead="One view of an object that training never met is shown; the 35 others are to be drawn. Views from nearly the same side "
    "are all but determined; those from a quarter turn away are not, since they show depth and parts that were hidden. Draws from a "
    "posterior over objects should differ there more than near the view shown, and each draw should be one object from all sides. A deterministic method draws their average.",
    papers=(
        "Gordon, Bronskill, Bauer, Nowozin & Turner, “Meta-Learning Probabilistic Inference for Prediction”, ICLR 2019, 5.3",
        "Sohn, Lee & Yan, “Learning Structured Output Representation using Deep Conditional Generative Models”, NIPS 2015",
        "Wang, Bovik, Sheikh & Simoncelli, “Image Quality Assessment”, IEEE TIP 2004",
    ),
    choices=(
        "Objects are split 70 : 10 : 20 for training, validation and test; those of one name, or that look alike from all sides, "
        "stay together. The step that is best on validation objects is kept, for every method.",
        "x: sines and cosines of the azimuth and its multiples to 4; y: grey pixels in 0 … 1, 16 x 16 in quick and 32 x 32 in full, normal with one learned "
        "standard deviation a method. Fully connected networks, 256 wide, the same sizes for method and control.",
        f"Each test object once (quick) or several times (full), its shown side at random. {DRAWS} draws; MSE and SSIM (11 x 11 "
        "Gaussian window) are of their mean; best: MSE of the draw nearest to the truth.",
        "Joint NLL: of all views of an object together, per pixel. Where the method has a proposal that sees the answer (neural "
        f"processes, C-VAE) it is an importance-weighted bound of {DRAWS} draws of each, proposal and prior, never better than the truth in "
        "expectation; else the mixture of draws, which is stated for all beside it. Marginal NLL: view by view, under the mixture of draws.",
        f"Diversity: root mean squared difference between two draws of a view within {NEAR:.0f}° of the shown one (near), or "
        f"{SIDE[0]:.0f}° to {SIDE[1]:.0f}° away (aside), where depth and hidden parts show; the back of most objects has the outline "
        "of their front. 0 for a deterministic method.",
        "cnp is the deterministic control: the same encoder and decoder without a latent. “C-VAE” has a latent a view, not an "
        "object: it describes single views well and its draws are incoherent, so that its joint NLL is low only with a proposal "
        "that has seen every view. “mean view” ignores what is shown. ensemble is four cnp, each a draw, with four times the "
        "parameters; the mean of many draws of one neural process has about the error of cnp.",
    ),
    metrics={
        "mse": Metric("MSE of the mean", "squared grey level", "low"),
        "ssim": Metric("SSIM of the mean", "1 is the same", "high"),
        "joint": Metric("joint NLL", "nats a pixel", "low"),
        "mixture": Metric("joint NLL, mixture of draws", "nats a pixel", "low"),
        "marginal": Metric("marginal NLL", "nats a pixel", "low"),
        "best": Metric("best draw's MSE", "squared grey level", "low"),
        "near": Metric("diversity near", "grey level", None),
        "side": Metric("diversity aside", "grey level", None),
    },
    methods=("cnp", "np", "ensemble"),
    able=("cnp", "acnp", "np", "anp", "flow_np", "maml", "versa", "alpaca", "ensemble"),
    budgets={
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
    },
    without={
        **dict.fromkeys(("recurrent", "snail"), "read rows in an order, which one view has not"),
        "ar_cnp": "feeds back whole images, a pass a view",
        **dict.fromkeys(
            ("emaml", "llama", "abml", "vampire", "bmaml", "platipus"),
            "inner loops on networks of hundreds of pixels, of which maml alone has settings here",
        ),
        **dict.fromkeys(("dkt", "process"), "would be a Gaussian process for each pixel"),
        **dict.fromkeys(("nuts", "bnn"), "fit all weights of a network of pixels for each object"),
    },
    run=run,
    draw=draw,
    references=(MEAN, CONTROL),
    anchors=(
        Anchor("C-VAE on ShapeNet", "", "mse", 0.0269, _PAPER),
        Anchor("C-VAE on ShapeNet", "", "ssim", 0.5705, _PAPER),
        Anchor("VERSA on ShapeNet", "", "mse", 0.0108, _PAPER),
        Anchor("VERSA on ShapeNet", "", "ssim", 0.7893, _PAPER),
    ),
    load=load,
    reads=lambda path: [inside(path, FILE)],
    sentence=sentence,
)

"""The wheel bandit: Thompson sampling with functions drawn from each method's posterior."""

from metaprior.protocols.bandit.judge import DELTAS, run, setting
from metaprior.protocols.bandit.pictures import draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able
from metaprior.sources.wheel import SURE, uniform_regret


def _anchors() -> tuple[Anchor, ...]:
    ravi = "Ravi & Beatson 2019, Table 1, n = 2000, noise 0.01, 50 runs"
    recalled = "recalled, not checked against the paper; 50 permutations of one data set, upper confidence bounds"
    rows = [
        ("ABML (Ravi & Beatson 2019)", dict(zip(DELTAS, (1.36, 1.59, 3.51, 7.21, 35.04))), ravi),
        (
            "MAML, greedy (Ravi & Beatson 2019)",
            dict(zip(DELTAS, (1.79, 2.10, 6.08, 16.80, 55.53))),
            ravi,
        ),
        ("TNP-D (Nguyen & Grover 2022)", dict(zip(DELTAS[1:], (1.18, 1.70, 2.55, 3.57))), recalled),
        (
            "NP (in Nguyen & Grover 2022)",
            dict(zip(DELTAS[1:], (1.56, 2.96, 4.24, 18.00))),
            recalled,
        ),
    ]
    anchors = [
        Anchor(name, setting(d), "cumulative", v, source)
        for name, each, source in rows
        for d, v in each.items()
    ]
    for d in DELTAS:  # arm 0 loses 50 - 1.2 outside and nothing inside
        value = 100 * (1 - d**2) * (50.0 - SURE) / uniform_regret(d)
        anchors.append(
            Anchor("always the sure arm", setting(d), "cumulative", round(value, 1), "closed form")
        )
    return tuple(anchors)


PROTOCOL = Protocol(
    name="bandit",
    title="Wheel bandit: exploring with a learned prior",
    lead="Five arms; one is sure, and beyond an unknown radius δ another one, which depends on the quadrant, pays "
    "fifty times as much. The closer δ is to 1, the rarer the contexts that tell. Each method learns from wheels of "
    "all radii and then plays new ones by Thompson sampling: it draws one function from its posterior and takes the "
    "arm that is best under it.",
    papers=(
        "Riquelme, Tucker & Snoek, “Deep Bayesian Bandits Showdown”, ICLR 2018",
        "Garnelo et al., “Neural Processes”, ICML 2018 workshop",
        "Ravi & Beatson, “Amortized Bayesian Meta-Learning”, ICLR 2019",
    ),
    choices=(
        "Reward noise has standard deviation 0.01 (both papers' text); released code uses 0.05 for the small rewards.",
        "Methods learn the logarithm of the reward with a normal head: means 1, 1.2 and 50 cannot be told apart on "
        "one linear scale. Arms are compared by the mean of that logarithm under the function drawn.",
        "Training wheels are drawn anew at every step, δ uniform in (0, 1), support rows with one uniformly drawn "
        "arm, query rows with all arms; the number of support rows is log-uniform, as a bandit meets every size. One "
        "widely used implementation trains on a single fixed batch of 8 wheels and permutes one fixed data set for "
        "its test seeds; nothing of that is done here.",
        "A new posterior every `refresh` steps; `draws` functions are drawn from it and used in turn, one a step. "
        "The support is all rows so far, or, where they are more than `memory`, as many: arms in equal shares, "
        "random within an arm, chosen without looking at rewards.",
        "Regret is expected regret (mean rewards), as a percentage of what uniform arms lose at the same contexts. "
        "Its expected value a step is 0.16 δ² + 39.16 (1 - δ²): "
        + ", ".join(f"{uniform_regret(d):.4g}" for d in DELTAS)
        + ". An oracle loses 0.",
        "maml and emaml take 5 inner steps, np reads rows by a deep set; all else are the table's "
        "defaults.",
        "Late regret: the same over the last 500 steps. `thompson` draws δ from its exact posterior, known in closed "
        "form, with the same refreshes. nuts, bnn, ensemble and stack are left out: a posterior takes them too long.",
    ),
    metrics={
        "cumulative": Metric("cumulative regret", "% of uniform", "low"),
        "simple": Metric("late regret", "% of uniform, last 500 steps", "low"),
        "regret": Metric("cumulative regret", "reward", "low"),
    },
    methods=("maml", "abml", "np"),
    able=able("numbers", but=("nuts", "bnn", "ensemble", "stack")),
    budgets={
        "quick": {
            "steps": {"": 1000, "abml": 700, "np": 5000},
            "batch": 16,
            "horizon": 2000,
            "repeats": 10,
            "refresh": 40,
            "late": 500,
            "draws": {"": 4, "np": 40},
            "memory": {"": 128, "np": 256, "thompson": 2000},
        },
        "full": {
            "steps": {"": 20000},
            "batch": 64,
            "horizon": 2000,
            "repeats": 50,
            "refresh": 20,
            "late": 500,
            "draws": {"": 4, "np": 20},
            "memory": {"": 512, "thompson": 2000},
        },
    },
    without={
        "ensemble": "several emaml, which runs by itself",
        **dict.fromkeys(("nuts", "bnn"), "fits weights anew at every step of thousands"),
    },
    run=run,
    draw=draw,
    references=("uniform", "thompson"),
    anchors=_anchors(),
    sentence=sentence,
)

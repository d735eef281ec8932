"""The wheel bandit: Thompson sampling with functions drawn from each method's posterior."""

from metaprior.protocols.bandit.judge import DELTAS, run, setting
from metaprior.protocols.bandit.pictures import draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able
from metaprior.sources.wheel import SURE, uniform_regret

_RAVI = "Ravi & Beatson 2019, Table 1, n = 2000, noise 0.01, 50 runs"
_RECALLED = (
    "recalled, not checked against the paper; 50 permutations of one data set, upper confidence "
    "bounds"
)
# Cumulative regret, % of uniform, at each radius of `DELTAS`; TNP's paper leaves out the first.
_PUBLISHED: dict[str, tuple[str, tuple[float | None, ...]]] = {
    "ABML (Ravi & Beatson 2019)": (_RAVI, (1.36, 1.59, 3.51, 7.21, 35.04)),
    "MAML, greedy (Ravi & Beatson 2019)": (_RAVI, (1.79, 2.10, 6.08, 16.80, 55.53)),
    "TNP-D (Nguyen & Grover 2022)": (_RECALLED, (None, 1.18, 1.70, 2.55, 3.57)),
    "NP (in Nguyen & Grover 2022)": (_RECALLED, (None, 1.56, 2.96, 4.24, 18.00)),
}


def _sure_arm(delta: float) -> float:
    """Regret of always taking arm 0, % of uniform: it loses nothing inside the radius."""
    return round(100 * (1 - delta**2) * (50.0 - SURE) / uniform_regret(delta), 1)


def _anchors() -> tuple[Anchor, ...]:
    """Published numbers, and what follows in closed form."""
    anchors = []
    for name, (source, values) in _PUBLISHED.items():
        for delta, value in zip(DELTAS, values):
            if value is not None:
                anchors.append(Anchor(name, setting(delta), "cumulative", value, source))
    for delta in DELTAS:
        value = _sure_arm(delta)
        anchors.append(
            Anchor("always the sure arm", setting(delta), "cumulative", value, "closed form")
        )
    return tuple(anchors)


LEAD = (
    "There are five arms. One is sure. Beyond an unknown radius δ another arm, which depends on "
    "the quadrant, pays fifty times as much. The closer δ is to 1, the rarer are the contexts "
    "that show it. Each method learns from wheels of all radii and then plays new ones by "
    "Thompson sampling: it draws one function from its posterior and takes the arm that is best "
    "under it."
)
CHOICES = (
    "Reward noise has standard deviation 0.01, as in the text of both papers. Released code uses "
    "0.05 for the small rewards.",
    "Methods learn the logarithm of the reward with a normal head, because means of 1, 1.2 and 50 "
    "cannot be told apart on one linear scale. Arms are compared by the mean of that logarithm "
    "under the drawn function.",
    "Training wheels are drawn anew at every step, with δ uniform in (0, 1). Support rows have one "
    "arm, drawn uniformly; query rows have all arms. The number of support rows is log-uniform, "
    "because a bandit meets every size. One widely used implementation trains on a single fixed "
    "batch of 8 wheels and permutes one fixed data set for its test seeds; that is not done here.",
    "A new posterior is made every `refresh` steps. `draws` functions are drawn from it and used "
    "in turn, one a step. The support is all rows so far. Where these are more than `memory`, it "
    "is `memory` of them: arms in equal shares, random within an arm, chosen without looking at "
    "rewards.",
    "Regret is expected regret (of mean rewards), as a percentage of what uniform arms lose at the "
    "same contexts. The latter is 0.16 δ² + 39.16 (1 - δ²) a step: "
    + ", ".join(f"{uniform_regret(d):.4g}" for d in DELTAS)
    + ". An oracle loses 0.",
    "maml and emaml take 5 inner steps, and np reads rows by a deep set. All other settings are "
    "the table's defaults.",
    "Late regret: the same over the last 500 steps. `thompson` draws δ from its exact posterior, "
    "known in closed form, with the same refreshes. nuts, bnn, ensemble and stack are left out: a "
    "posterior takes them too long.",
)

PAPERS = (
    "Riquelme, Tucker & Snoek, “Deep Bayesian Bandits Showdown”, ICLR 2018",
    "Garnelo et al., “Neural Processes”, ICML 2018 workshop",
    "Ravi & Beatson, “Amortized Bayesian Meta-Learning”, ICLR 2019",
)
METRICS = {
    "cumulative": Metric("cumulative regret", "% of uniform", "low"),
    "simple": Metric("late regret", "% of uniform, last 500 steps", "low"),
    "regret": Metric("cumulative regret", "reward", "low"),
}
BUDGETS = {
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
}

PROTOCOL = Protocol(
    name="bandit",
    title="Wheel bandit: exploring with a learned prior",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "abml", "np"),
    able=able("numbers", but=("nuts", "bnn", "ensemble", "stack")),
    budgets=BUDGETS,
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

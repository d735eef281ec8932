"""Structured exploration: walk to the goal of a function drawn from the posterior."""

from metaprior.protocols.navigation.judge import (
    KNOWN,
    MEAN,
    POLICY,
    RANDOM,
    REFERENCES,
    SAMPLES,
    SWEEP,
    run,
)
from metaprior.protocols.navigation.pictures import draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

LEAD = (
    "A goal lies somewhere on a half circle, and pays only nearby. Random steps never find "
    "it. Each method learns what rewards look like on goals of other tasks. As an episode "
    "begins it draws one function from its posterior and walks straight to its highest place. "
    "So it explores one guess an episode, never one that it has ruled out, until it finds the "
    "goal and stays with it."
)
CHOICES = (
    "Goals are on the half circle of radius 1. An episode starts in its middle and has 20 "
    "steps of at most 0.1 in each coordinate; a task has ten episodes. Within the radius "
    "(0.2) the reward is 1 less the distance from the goal, elsewhere 0. `--set radius=0.3` "
    "changes the radius; `--set goals=2` has two goals a task, and pays near either of them.",
    "Goals of judged tasks are at 181 angles (61 for two goals), each as likely, so that the "
    "exact posterior is a sum. Goals of training are anywhere on the half circle, new ones at "
    "every step.",
    "The reward function is a regression task: x is the position, y the reward. In training "
    "the support is what 0 to 9 walks to random places bring, half of the later ones near a "
    "goal that was found. No method sees which places the exact agents would choose.",
    "Of an episode the rows of steps 6 to 10 are kept. Earlier ones are nowhere near a goal, "
    "and later ones repeat the tenth.",
    "Methods that draw functions by a latent variable (np, anp, flow_np) are asked in training "
    "for the dense reward (1 less the distance, everywhere), from supports with the sparse one: "
    "PEARL also trains on the dense reward. Where some rows have a reward, they are shown only "
    "those. The others have the sparse reward in both, and all rows. `np` reads rows by a deep "
    "set, gives the decoder the support too, and learns three times as fast as by default. "
    "Settings were chosen on other goals than those that are judged.",
    "The highest place is sought at 121 angles of the half circle, where all agents but the "
    "random one know that goals are.",
    f"`{SAMPLES}` does the same with the exact posterior. `{MEAN}` walks to the place with the "
    f"highest mean reward under it. `{SWEEP}` walks to the possible goal with the lowest angle "
    "and thinks anew after each step: it searches the half circle inside an episode, as an "
    "agent does that plans for what it will learn. It is good; no proof says that it is best.",
    f"`{POLICY}` is a recurrent network that sees position and reward, the highest reward so "
    "far and its place, and chooses one of 37 places of the half circle at each step. It is "
    "trained by plain policy gradients with a learned baseline. It is no method of this "
    "package, and has no map.",
    "The map p(goal | rows) is judged on tasks whose episodes so far saw no reward, where "
    "there are at least 30: the largest distance from uniform of the rank of the goal's angle "
    "among drawn ones (95 % of calibrated maps are below the bound), the continuous ranked "
    "probability score, and the share of drawn goals that rows had ruled out. Each method has "
    "the rows of its own walks.",
)
PAPERS = (
    'Rakelly, Zhou, Quillen, Finn & Levine, "Efficient Off-Policy Meta-Reinforcement Learning via '
    'Probabilistic Context Variables" (PEARL), ICML 2019',
    'Osband, Russo & Van Roy, "(More) Efficient Reinforcement Learning via Posterior Sampling", '
    "NeurIPS 2013",
    'Zintgraf et al., "VariBAD: A Very Good Method for Bayes-Adaptive Deep RL via Meta-Learning", '
    "ICLR 2020",
)
METRICS = {
    "return": Metric("return", "sum of rewards of the episode, at most 20", "high"),
    "found": Metric("found", "share of tasks that saw a reward by then", "high"),
    "map": Metric("map of the goal", "largest distance from uniform", "low"),
    "bound": Metric("bound", "95 % of calibrated maps are below", None),
    "score": Metric("score of the map", "radians", "low"),
    "ruled": Metric("drawn goals that were ruled out", "share", "low"),
}
_LATENT = ("np", "anp", "flow_np")
_SHARED = {
    "radius": 0.2,
    "goals": 1,
    "draws": 32,
    "query": 16,
    "batch": 16,
    "dense": {"": False, **dict.fromkeys(_LATENT, True)},
    "forget": {"": False, **dict.fromkeys(_LATENT, True)},
    "hyper": {"": {}, "np": {"encoder": "deep set", "deterministic": True}},
    "rate": {"": None, "np": 3e-3},
}
_POLICY = {
    "batch": 128,
    "episodes": 4,
    "width": 64,
    "learning_rate": 5e-3,
    "discount": 0.97,
    "entropy": 0.01,
}
BUDGETS = {
    "quick": _SHARED
    | {
        "steps": {"": 1_000, "np": 2_000, "dkt": 3_000},
        "tasks": 300,
        "policy": {"steps": 600, **_POLICY},
    },
    "full": _SHARED
    | {"steps": {"": 20_000}, "tasks": 1_000, "policy": {"steps": 10_000, **_POLICY}},
}
_BEFORE = (
    "Computed elsewhere: 300 other goals anywhere on the half circle, straight walks, radius 0.2."
)
_ANCHORS = {
    KNOWN: (13.2, 13.2, 13.2, 13.2),
    SAMPLES: (1.6, 4.3, 6.8, 12.6),
    SWEEP: (3.2, 12.8, 13.2, 13.2),
    RANDOM: (0.0, 0.0, 0.0, 0.0),
}

PROTOCOL = Protocol(
    name="navigation",
    title="Navigation: exploring with one guess an episode",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "np", "dkt"),
    able=able("numbers", but=("ensemble", "stack", "nuts", "bnn", "ar_cnp")),
    budgets=BUDGETS,
    without={
        "ensemble": "several emaml, which runs by itself",
        "ar_cnp": "reads its draws at 121 places one by one",
        **dict.fromkeys(("nuts", "bnn"), "fit weights before every episode of every task"),
    },
    run=run,
    draw=draw,
    references=REFERENCES,
    anchors=tuple(
        Anchor(f"{name}, computed before", f"episode {episode}", "return", value, _BEFORE)
        for name, values in _ANCHORS.items()
        for episode, value in zip((1, 3, 5, 10), values)
    ),
    sentence=sentence,
)

"""The part `location`: where to read next, to find a source."""

from typing import Any

import jax
import jax.random as jr
import numpy as np

from metaprior.protocols.cell import part_of
from metaprior.protocols.learned_acquisition.location_agents import Exact, at_random
from metaprior.protocols.learned_acquisition.location_pictures import PATHS, draw, sentence
from metaprior.protocols.learned_acquisition.location_policy import learn
from metaprior.protocols.learned_acquisition.location_world import (
    FINE,
    READINGS,
    Played,
    information,
    play,
)
from metaprior.protocols.learned_acquisition.part import Part
from metaprior.protocols.protocol import Anchor, Figure, Metric, Outcome, Tell
from metaprior.protocols.raw import task_rows
from metaprior.system.compiled import jit

RANDOM, POLICY = "random places", "learned policy"
DRAWN, VARIANCE, GREEDY = "a drawn source", "highest variance", "most information"
RULES = {DRAWN: "draw", VARIANCE: "variance", GREEDY: "information"}
SETTING = "location"
SHOWN = (1, 2, 3, 5, 10, 20, 30)
TEST_KEY = 20261208


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train the policy, let all look for the same sources, and say what they know in the end."""
    facts: dict[str, Any] = {}
    if method == POLICY:
        how = options["policy"] | {"readings": READINGS}
        policy, facts = learn(how, seed, part_of(tell, 0.0, 0.9))
    else:
        policy = Exact(RULES[method]) if method in RULES else at_random
    tell(0.9, "reading")
    keys = jr.split(jr.key(TEST_KEY), options["tasks"])
    source, played, gained = (np.asarray(a) for a in _flat(judge(policy, keys)))
    figures = [Figure.of(f"T = {t}", "information", gained[:, t - 1]) for t in SHOWN]
    rows = task_rows(SETTING, *gained.shape) | {
        "information": gained.ravel(),
        "place_x": played[..., 0].ravel(),
        "place_y": played[..., 1].ravel(),
        "reading": played[..., 2].ravel(),
        "source_x": np.repeat(source[:, 0], READINGS),
        "source_y": np.repeat(source[:, 1], READINGS),
    }
    drawing = {
        "location information": gained.mean(0),
        "location path": played[:PATHS, :, :2],
        "location source": source[:PATHS],
    }
    return Outcome(figures, rows, drawing, facts=facts)


def _flat(found: tuple[jax.Array, Played, jax.Array]) -> tuple[Any, Any, Any]:
    """Sources; places and readings as one array; information."""
    source, played, gained = found
    both = np.concatenate([played.place, np.asarray(played.reading)[..., None]], -1)
    return source, both, gained


@jit
def judge(policy: Any, keys) -> tuple[jax.Array, Played, jax.Array]:
    """The same sources and noise for all who read."""

    def one(k):
        s_key, p_key = jr.split(k)
        source = jr.uniform(s_key, (2,))
        played = play(policy, source, key=p_key)
        return source, played, information(source, played, FINE)

    return jax.lax.map(one, keys, batch_size=8)


_ALINE = (
    "Huang et al., ALINE, NeurIPS 2025: the same task, a lower bound of the information with 10^6 "
    "contrastive sources; ALINE chooses among 2,000 fixed places."
)
_PUBLISHED = {
    "random": 5.17,
    "VPCE": 5.25,
    "DAD": 7.33,
    "vsOED": 7.30,
    "RL-BOED": 7.70,
    "ALINE": 8.91,
}
_BEFORE = (
    "Computed elsewhere with a grid of 64 x 64 for the rule, 150 to 250 tasks; standard errors "
    "0.06 to 0.14."
)
_TABLE = {
    RANDOM: (0.94, 1.59, 2.03, 2.86, 3.85, 4.78, 5.30),
    VARIANCE: (0.87, 1.86, 3.01, 5.15, 7.60, 8.64, 8.98),
    DRAWN: (0.90, 1.77, 2.84, 4.85, 7.68, 9.28, 9.88),
}
_QUICK = {
    "tasks": 300,
    "policy": {"steps": 1_500, "batch": 32, "width": 32, "learning_rate": 3e-3, "early": 0.3},
}
LOCATION = Part(
    budgets={
        "quick": _QUICK,
        "full": {
            "tasks": 2_000,
            "policy": _QUICK["policy"] | {"steps": 10_000, "batch": 64},
        },
    },
    choices=(
        "Location: one source, uniform in the unit square; a reading at a place anywhere in it is "
        "log(0.1 + 1 / (10^-4 + distance^2)) with noise 0.5; 30 readings. Information: log p("
        "readings | source) - log p(readings), its mean in nats. The evidence is an exact integral "
        "over the square, by a rule around the true source with radii on a logarithmic scale; it "
        "is no bound.",
        f"“{POLICY}”: deep adaptive design (Foster et al. 2021), a sum over encoded readings, in "
        "coordinates relative to the places with the largest readings. It is trained through its "
        "readings on this information, and is given no posterior. Sources are new at every step.",
        f"Who knows the exact posterior: “{DRAWN}” reads at a draw of the source; “{VARIANCE}” "
        f"where the mean reading varies most; “{GREEDY}” where one reading is expected to say "
        "most. The last two choose among 128 draws of the source and 64 random places.",
    ),
    metrics={"information": Metric("information about the source", "nats", "high")},
    references=(RANDOM, *RULES, POLICY),
    methods=False,
    run=run,
    draw=draw,
    sentence=sentence,
    anchors=(
        *(
            Anchor(f"{name}, published", "T = 30", "information", value, _ALINE)
            for name, value in _PUBLISHED.items()
        ),
        *(
            Anchor(f"{name}, computed before", f"T = {t}", "information", value, _BEFORE)
            for name, values in _TABLE.items()
            for t, value in zip(SHOWN, values)
        ),
    ),
)

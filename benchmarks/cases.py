"""What is timed: the jobs, who does them, and what is asked of the ratios.

Imports neither JAX nor PyTorch, so that the process which starts the others stays small.
"""

from dataclasses import dataclass, field
from typing import Any

OURS, DEFAULTS = "metaprior", "metaprior, its defaults"
GPU = "gpu"  # where a number of cores stands otherwise
HIGHER, FUNC, COMPILED, EAGER = "higher", "torch.func", "torch.compile(torch.func)", "eager PyTorch"
WHOLE = "torch.compile(whole step)"


@dataclass(frozen=True)
class Case:
    """One job, the same for all who do it.

    Args:
        name: on the command line and in the file.
        what: for the reader.
        kind: of tasks: `"sinusoid"`, `"gp"` or `"images"`.
        row: of `metaprior.methods.METHODS`.
        batch: tasks a meta-step.
        plain: options of the method that make it the same mathematics as its peers'.
        defaults: options of a second line without a peer, the method as it comes; `None` for none.
        peers: who else does it.
        targets: least ratio of tasks a second to a peer's, or to the `"best"` of them.
        at_once: of `metaprior.fit`.
        random: the loss draws noise of its own, so that two libraries' losses differ.
    """

    name: str
    what: str
    kind: str
    row: str
    batch: int
    plain: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] | None = None
    peers: tuple[str, ...] = (WHOLE, EAGER)
    targets: dict[str, float] = field(default_factory=dict)
    at_once: int | None = None
    random: bool = False

    def lines(
        self, torch: bool = True, compiler: bool = True, gpu: bool = False
    ) -> list[tuple[str, int | str]]:
        """Who does it on how many cores, or on the GPU, of what this machine has."""
        able = [
            peer for peer in self.peers if torch and (compiler or peer not in (COMPILED, WHOLE))
        ]
        where: tuple[int | str, ...] = (GPU,) if gpu else (1, 2)
        found = [(who, cores) for who in (OURS, *able) for cores in where]
        return [*found, (DEFAULTS, where[-1])] if self.defaults is not None else found


SINE = {"width": 40, "depth": 2, "inner_lr": 0.01}
# As the paper's algorithm has it.
PLATIPUS = {"clip": None, "bias_std": 0.02, "gamma": 0.01, "objective": "elbo"}
ABML = {"clip": None, "inner_kl": 0.1, "kl_weight": 0.1}
SHOTS = {"sinusoid": (10, 10), "gp": (25, 50), "images": (5, 5)}  # rows of support and of query


def _maml(steps: int) -> Case:
    what = (
        "MAML, sinusoids, MLP 1-40-40-1, 10 + 10 rows, 25 tasks a step, second order, "
        f"inner steps: {steps}"
    )
    return Case(
        f"maml-{steps}",
        what,
        "sinusoid",
        "maml",
        25,
        SINE | {"steps": steps, "clip": None},
        peers=(WHOLE, COMPILED, FUNC, HIGHER),
        targets={WHOLE: 3.0, COMPILED: 3.0, HIGHER: 100.0},
    )


def _bayes(name: str, row: str, n: int, what: str, options: dict, many: str, **rest: Any) -> Case:
    text = f"{what}, {n} {many}, sinusoids, 25 tasks a step, 1 inner step"
    defaults = None
    if row != "emaml":  # whose defaults are those of its members
        defaults = {many_of(row): n}
        if options.get("objective") == "chaser":
            defaults["objective"] = options["objective"]
    return Case(
        f"{name}-{n}",
        text,
        "sinusoid",
        row,
        25,
        SINE | {"steps": 1, many_of(row): n} | options,
        defaults,
        targets={WHOLE: 3.0, EAGER: 40.0},
        **rest,
    )


def many_of(row: str) -> str:
    """The option that says how many networks a method has."""
    return {"emaml": "members", "bmaml": "particles"}.get(row, "samples")


def _cases() -> list[Case]:
    found = [_maml(1), _maml(5)]
    for n in (5, 10):
        found += [
            _bayes("emaml", "emaml", n, "Ensemble of MAML", {"clip": None}, "members"),
            _bayes("bmaml", "bmaml", n, "BMAML, nll", {"clip": None, "power": 1.0}, "particles"),
            _bayes(
                "bmaml-chaser",
                "bmaml",
                n,
                "BMAML, chaser",
                {"clip": None, "objective": "chaser"},
                "particles",
            ),
            _bayes("platipus", "platipus", n, "PLATIPUS", PLATIPUS, "draws", random=True),
            _bayes("abml", "abml", n, "ABML", ABML, "draws", random=True),
        ]
    gp = "Gaussian-process tasks, 25 + 50 rows, width 256, 16 tasks a step"
    two = {WHOLE: 1.5, EAGER: 2.0}
    image = "Conv4 (64 filters), 5-way 1-shot, 28 x 28, one query image a class, 8 tasks a step"
    return [
        *found,
        Case("cnp", f"CNP, {gp}", "gp", "cnp", 16, {"width": 256}, targets=two),
        Case("acnp", f"Attentive CNP, {gp}", "gp", "acnp", 16, {"width": 256}, targets=two),
        Case(
            "anp",
            f"ANP, evidence bound with one draw, {gp}",
            "gp",
            "anp",
            16,
            {"width": 256, "samples": 1, "objective": "elbo"},
            targets={WHOLE: 1.5},
            random=True,
        ),
        Case(
            "protonet-conv4",
            f"ProtoNet, {image}, max-pool",
            "images",
            "protonet",
            8,
            {"embedding": 64, "pseudo_count": 0.0},
            targets={WHOLE: 1.5, "best": 1.7},
            at_once=1,
        ),
        Case(
            "maml-conv4",
            f"MAML, {image}, strides, second order, 1 inner step",
            "images",
            "maml",
            8,
            {"inner_lr": 0.4, "steps": 1, "clip": None},
            peers=(WHOLE, FUNC, HIGHER, EAGER),
            targets={WHOLE: 1.5, "best": 1.7},
            at_once=1,
        ),
    ]


CASES = {case.name: case for case in _cases()}

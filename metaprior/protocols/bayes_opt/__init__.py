"""What is a learned prior worth to an optimiser?"""

from metaprior.protocols.bayes_opt.data import BRANIN, FORRESTER, GP_1D
from metaprior.protocols.bayes_opt.judge import EXACT, OWN, RANDOM, REFERENCES, SCRATCH, run
from metaprior.protocols.bayes_opt.pictures import draw, sentence
from metaprior.protocols.bayes_opt.tables import HPOB_FILES, load, reads
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

LEAD = (
    "An optimiser that starts from nothing spends its first evaluations on learning what such "
    "functions look like. A prior that has seen others of the kind need not. Each method learns "
    "from the training functions of a family, and then seeks the lowest value of new ones, an "
    "evaluation at a time. Beside it stand random search, a Gaussian process from scratch, and the "
    "prior that is true where it is known."
)
CHOICES = (
    "Forrester: a (6x - 2)² sin(12x - 4) + b (x - 0.5) - c, a in 0.2 … 3, b in -5 … 15, c in -5 … "
    "5; noise 0.1; 401 places of [0, 1]; training functions of 20 rows. Exact: the normal with the "
    "moments of a, b and c, in which the family is linear.",
    "GP-1D: Gaussian processes with the squared-exponential kernel, length 0.1 … 0.6, scale 0.1 … "
    "1, without noise; 400 places of [-2, 2]; everyone starts from the same random place, which is "
    "not counted; training functions of 48 rows. Exact: the posterior over six lengths and five "
    "scales. Own: the function's own length and scale are known.",
    "Branin: six parameters vary (Rothfuss et al. 2021), noise 2; 33 x 33 places of the box; "
    "training functions of 50 rows. Regret is on the lowest value of the whole box, of each "
    "function its own, so that the best place has some left.",
    "DeepAR: measured configurations of a network on 11 data sets; the log of the error is sought. "
    "Five splits leave two or three data sets out. Hunts of one data set are averaged before "
    "errors are taken.",
    f"HPO-B, where the data folder has {', '.join(HPOB_FILES)}: five starts of each test data set, "
    "as published; regret of y scaled to 0 … 1 in each data set, on evaluations after the start.",
    "The next place is that of highest expected improvement on the lowest observation, or before "
    "there is one on the lowest expected value. Of equal places one is taken at random, and "
    "none is tried twice. Noise and random places are the same for all, so that differences are "
    "paired over functions.",
    "From scratch: a constant mean, Matérn-5/2, mean and scale of the function's own observations, "
    "and of 18 settings (six lengths, three levels of noise) the one of highest marginal "
    "likelihood. It starts from two random places, where the others start from none.",
    "Regret: of the best place tried, by its value without noise. Recommended: of the place with "
    "the lowest expected value; random search recommends its best observation. Solved: within 1 % "
    "of the function's range, or among the best 1 % of a table's rows. Evaluations: until solved; "
    "one more than were made where never.",
    "A suggestion's seconds: 8 functions side by side, in one program, compiling aside.",
)
PAPERS = (
    'Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box '
    'Functions", 1998',
    'Rothfuss, Heyn, Chen & Krause, "Meta-Learning Reliable Priors in the Function Space", '
    "NeurIPS 2021",
    'Nguyen & Grover, "Transformer Neural Processes", ICML 2022',
    'Salinas, Shen & Perrone, "A Quantile-Based Approach for Hyperparameter Transfer Learning", '
    "ICML 2020",
    'Pineda Arango, Jomaa, Wistuba & Grabocka, "HPO-B: A Large-Scale Reproducible Benchmark for '
    'Black-Box HPO Based on OpenML", NeurIPS Datasets and Benchmarks 2021',
)
METRICS = {
    "regret": Metric("simple regret by evaluations", "units of y", "low"),
    "regret_thompson": Metric("the same by Thompson sampling", "units of y", "low"),
    "solved": Metric("solved by evaluations", "share of functions", "high"),
    "recommended": Metric("regret of the recommended place", "units of y", "low"),
    "evaluations": Metric("evaluations until solved", "mean over functions", "low"),
    "evaluations_thompson": Metric("the same by Thompson sampling", "mean over functions", "low"),
    "cumulative": Metric("cumulative regret", "units of y", "low"),
    "seconds": Metric("time of a suggestion", "seconds", None),
}
BUDGETS = {
    "quick": {
        "training": {FORRESTER: 100, GP_1D: 300, BRANIN: 100},
        "judged": 100,
        "repeats": 5,
        "trials": 50,
        "steps": {
            FORRESTER: {"": 300, "alpaca": 6_000},
            GP_1D: {"": 800, "alpaca": 1_500},
            BRANIN: {"": 300, "alpaca": 3_000},
            "tables": {"": 600},
        },
        "rules": {"": ["improvement"], "alpaca": ["improvement", "thompson"]},
    },
    "full": {
        "training": {FORRESTER: 100, GP_1D: 5_000, BRANIN: 1_000},
        "judged": 500,
        "repeats": 20,
        "trials": 100,
        "steps": {
            FORRESTER: {"": 10_000, "alpaca": 20_000},
            GP_1D: {"": 20_000},
            BRANIN: {"": 10_000, "alpaca": 20_000},
            "tables": {"": 3_000},
        },
        "rules": {"": ["improvement", "thompson"]},
    },
}
_BEFORE = "Computed elsewhere, on other functions: 100 of Forrester's, 60 of GP-1D."
_ANCHORS = {
    (RANDOM, FORRESTER): {1: 8.86, 3: 5.29, 5: 3.53, 10: 1.95, 20: 0.79},
    (SCRATCH, FORRESTER): {1: 8.86, 3: 5.25, 5: 3.38, 10: 0.43, 20: 0.26},
    (EXACT, FORRESTER): {1: 0.53, 3: 0.007, 5: 0.002, 10: 0.002, 20: 0.002},
    (RANDOM, GP_1D): {1: 0.758, 3: 0.456, 5: 0.361, 10: 0.242, 20: 0.109, 30: 0.064},
    (EXACT, GP_1D): {1: 0.561, 3: 0.297, 5: 0.099, 10: 0.013, 20: 0.0007, 30: 0.0004},
    (OWN, GP_1D): {1: 0.534, 3: 0.189, 5: 0.113, 10: 0.023, 20: 0.0004, 30: 0.0003},
}

PROTOCOL = Protocol(
    name="bayes-opt",
    title="What is a prior worth to an optimiser?",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("alpaca", "process"),
    able=able("numbers", but=("ensemble", "stack", "nuts", "bnn", "ar_cnp")),
    budgets=BUDGETS,
    without={
        "ensemble": "several emaml, which runs by itself",
        **dict.fromkeys(
            ("nuts", "bnn", "ar_cnp"), "fit or draw anew for minutes, after every evaluation"
        ),
    },
    run=run,
    draw=draw,
    references=REFERENCES,
    anchors=tuple(
        Anchor(f"{name}, computed before", f"{family}: {n}", "regret", value, _BEFORE)
        for (name, family), found in _ANCHORS.items()
        for n, value in found.items()
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)

"""What a prior is worth on tasks unlike those that it has learned from."""

from metaprior.protocols.protocol import MANY_TASKS, Metric, Protocol, able
from metaprior.protocols.shift.data import JUMP, LENGTH, MOST, NOISE, SD, SHOWN
from metaprior.protocols.shift.judge import EXACT, HEADS, PRIOR, REFERENCES, WRONG, run
from metaprior.protocols.shift.labels import WRONG_LABELS
from metaprior.protocols.shift.pictures import draw, sentence

LEAD = (
    "A learned prior is right for tasks like those of training. Here one thing at a time is "
    "changed: where x lies, the family of the functions, one of the rows, how many rows there are, "
    "the noise. The exact answer of the changed tasks is known, so that what a change costs is a "
    "number; and so is whether bands still hold what they say."
)
CHOICES = (
    f"Training: functions from a Gaussian process with the squared-exponential kernel, length "
    f"{LENGTH}, variance 1, noise {NOISE}, x in [-2, 2], 0 to {SHOWN} rows shown. Judged tasks "
    f"show {SHOWN}, in one setting {MOST}. The same random numbers make the tasks of all settings: "
    "what a change adds is taken task by task.",
    "Other x: all rows of a task lie in [2, 6], so that whoever does not see where x is answers as "
    "before. Beyond rows: those shown lie in [-2, 2], those asked for in [2, 6], of which the rows "
    "say little.",
    "Families: the Matérn-5/2 kernel of the same length, and a periodic one (period 1, length 1 "
    "within it), of which far rows say as much as near ones.",
    f"One row of the {SHOWN} shown, any, is moved up or down: off by {JUMP:g} standard deviations "
    f"of the noise ({JUMP * NOISE:g}), far off by {JUMP:g} of an outcome ({JUMP * SD:.3g}). "
    "“Lost” is against the same tasks without the move. The exact answer there knows that one row "
    "was moved and how far, not which: Bayes' rule over the rows and both signs.",
    f"Labels: whether a sine wave or a line is positive, noise included (`sources.SineLine`), "
    f"{SHOWN} labels shown. Then one in {1 / WRONG_LABELS:.0f} of those shown is wrong, by itself; "
    "those asked for are right. The exact answer there knows the share. Methods that predict "
    "labels are trained a second time for it.",
    f"{EXACT} knows the setting. {WRONG} conditions exactly, with the kernel and noise of "
    f"training: what a perfect learner of the training tasks does. {PRIOR} does not look at the "
    "rows; a method behind it were better not used.",
    f"Methods have the head `head`, one of {', '.join(HEADS)}. A share `seen` of the training "
    "tasks has a row moved, by either distance, and labels are wrong as often as in judged "
    "tasks: none unless it is set.",
    "Published sizes of the same changes, on other processes: TNP-D, trained on random lengths of "
    "the squared exponential, is 0.12 nats above exact there, 0.17 on Matérn and 4.70 on periodic "
    "functions (Nguyen and Grover 2022). From [-2, 2] to [2, 6] an attentive neural process goes "
    "from -0.61 to -1.42 nats a row, a convolutional one from -0.80 to -0.81 (Bruinsma et al. "
    "2021).",
)
PAPERS = (
    'Gordon et al., "Convolutional Conditional Neural Processes", ICLR 2020',
    'Bruinsma et al., "The Gaussian Neural Process", AABI 2021',
    'Nguyen & Grover, "Transformer Neural Processes: Uncertainty-Aware Meta Learning Via Sequence '
    'Modeling", ICML 2022',
    'Shah, Wilson & Ghahramani, "Student-t Processes as Alternatives to Gaussian Processes", '
    "AISTATS 2014",
)
METRICS = {
    "gap": Metric("NLL above exact", "nats a row", "low"),
    "added": Metric("more than unshifted", "nats a row", "low"),
    "lost": Metric("lost by the wrong row or labels", "nats a row", "low"),
    "coverage90": Metric("rows in the 90 % band", "share", 0.9),
    "spread": Metric("stated spread over error", "ratio", 1.0),
    "nll": Metric("NLL", "nats a row", "low"),
}
BUDGETS = {
    "quick": {"steps": 1_500, "tasks": 400, "head": "student_t", "seen": 0.0},
    "full": {"steps": 30_000, "tasks": 4_000, "head": "student_t", "seen": 0.0},
}

PROTOCOL = Protocol(
    name="shift",
    title="Tasks unlike those of training",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("tnp", "convcnp", "dkt"),
    able=able("numbers", but=(*MANY_TASKS, "stack"), inputs=1),
    budgets=BUDGETS,
    without=MANY_TASKS,
    run=run,
    draw=draw,
    references=REFERENCES,
    sentence=sentence,
)

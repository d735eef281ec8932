"""Every row of THE TABLE holds the contract, with every head that it predicts.

And the contract notices what is broken.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from metaprior import Spec
from metaprior.heads import (
    Autoregressive,
    Categorical,
    Energy,
    Flow,
    Gaussian,
    Implicit,
    MixtureDensity,
    StudentT,
)
from metaprior.method import AbstractMethod
from metaprior.methods import MAML, METHODS, NP, PACOH, Process, ProtoNet
from metaprior.nets.mlp import apply, mlp
from metaprior.posterior import AbstractHead, Particles
from metaprior.testing import check_learner, check_method, example_task

HEADS = {"gaussian": Gaussian(1), "student": StudentT(1), "classes": Categorical(3)}
# Most have the same width: operations that run by themselves are compiled once a shape.
SMALL = {
    "snail": dict(width=4, depth=1, length=4),
    "acnp": dict(width=8, depth=1),
    "tnp": dict(width=8, depth=1),
    "ar_cnp": dict(width=8, depth=1, encoder="deep set"),
    "gnp": dict(width=8, depth=1, rank=4),
    "agnp": dict(width=8, depth=1, rank=4),
    "metaqda": dict(width=8, embedding=4),
    "convcnp": dict(width=8, depth=2, points=32, spacing=0.25),
    "np": dict(width=8, latent=4, samples=2, depth=1, encoder="deep set"),
    "anp": dict(width=8, latent=4, samples=2, depth=1),
    "flow_np": dict(width=8, latent=2, samples=2, depth=1, encoder="deep set"),
    "alpaca": dict(width=8, size=4),
    "process": dict(width=8, features=4),
    "dkt": dict(width=8, features=4),
    "versa": dict(width=8, features=4, samples=2),
    "nuts": dict(features="linear", warmup=60, draws=100, chains=2, doublings=0),
    "maml": dict(width=8, steps=2),
    "ensemble": dict(members=2, width=8, steps=2),
    "emaml": dict(members=2, width=8, steps=2),
    "llama": dict(width=6, depth=1),
    "abml": dict(width=8, depth=1, steps=2),
    "vampire": dict(width=8, depth=1, steps=2, samples=2),
    "bmaml": dict(width=8, depth=1, steps=2, particles=3),
    "platipus": dict(width=8, depth=1, steps=2),
    "pacoh": dict(width=8, features=4),
    "pacoh_nn": dict(width=8, depth=1, particles=2, steps=5),
}
CLASSES = {
    "nuts": dict(width=3, depth=1, steps=1, samples=1, warmup=60, draws=100, chains=2, doublings=0)
}  # its base is another
# Of each family one row is checked by default, with the first head it predicts; MAML with a second
# one. The others are slow.
SECOND = {("process", "student"), ("maml", "classes")}
# They share their code with a row that is checked: the others of their family compile for longer.
RELATED = {
    "abml",
    "llama",
    "vampire",
    "platipus",
    "bmaml",
    "maml_fixed",
    "emaml",
    "ensemble",
    "versa",
    "matching",
}
RELATED |= {"acnp", "agnp", "tnp", "ar_cnp", "np", "anp", "recurrent", "snail", "dkt"}
RELATED |= {"pacoh_nn"}
# A number of noise for each row: in another order they are other draws of the same posterior.
DRAWN = {"llama"}
CHAINS = {"nuts"}  # rounding moves a chain to other draws of the same posterior
# Splines take a minute to compile, and five kernels half of one.
LONG = {"flow_np", "process", "pacoh", "f_pacoh"}
ORDERED = {"recurrent", "snail"}  # they read a sequence
CASES = [
    pytest.param(
        name,
        head,
        marks=[] if quick and name not in CHAINS | LONG | RELATED else [pytest.mark.slow],
    )
    for name, row in METHODS.items()
    for head in HEADS
    if head != "student" or (name, head) in SECOND
    if row.trainable and ("classes" if HEADS[head].classes else "numbers") in row.kinds
    for quick in [
        (name, head) in SECOND or head == ("gaussian" if "numbers" in row.kinds else "classes")
    ]
]


def columns(name):
    """Of x, in the tasks that a row is checked on."""
    return METHODS[name].inputs or 2


@pytest.mark.parametrize("name,head", CASES)
def test_contract(name, head):
    options = SMALL.get(name, dict(width=8))
    options = CLASSES.get(name, options) if HEADS[head].classes else options
    of_classes = head == "classes" and METHODS[name].method in (Process, PACOH)
    # Networks draw where their particles start, so theirs are the same.
    other_draws = (of_classes and name != "pacoh_nn") or name in CHAINS | DRAWN
    resampled = 0.2 if other_draws else None
    check_method(
        METHODS[name].init,
        head=HEADS[head],
        x_dim=columns(name),
        ordered=name in ORDERED,
        resampled=resampled,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n, row in METHODS.items() if row.trainable and "numbers" in row.kinds]
)
def test_the_head_of_tables(name):
    """Only the density differs from that of a Gaussian, with which all of the contract is checked.

    Here losses, their gradients and the predictive, from 4 rows and from none.
    """
    method = METHODS[name].init(
        Spec(columns(name), StudentT(1)), key=jax.random.key(0), **SMALL.get(name, dict(width=8))
    )
    moving, fixed = eqx.partition(method, eqx.is_inexact_array)
    tasks = [
        example_task(jax.random.key(i), StudentT(1), columns(name), shots)
        for i, shots in enumerate((4, 0))
    ]
    y = jnp.sinh(jnp.linspace(-13.0, 13.0, 6001))

    @jax.jit
    def look(moving, task, key):
        value, gradient = jax.value_and_grad(lambda m: eqx.combine(m, fixed).loss(task, key=key))(
            moving
        )
        predictive = (
            eqx.combine(moving, fixed)
            .posterior(task.support, key=key)
            .predict(task.query.x[:1], key=key, samples=4)
        )
        density = jnp.exp(jax.vmap(predictive.log_prob)(y[:, None, None]))[:, 0]
        return value, gradient, predictive.log_prob(task.query.y[:1]), jnp.trapezoid(density, y)

    for task in tasks:
        *values, mass = look(moving, task, jax.random.key(1))
        assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(values))
        assert abs(float(mass) - 1) < 0.01


# Heads that any row takes as it takes a Gaussian; small, most with arrays of their own
LITTLE: dict = dict(width=4, hidden=4, draws=16)
SHAPED = {
    "mixture": lambda key: MixtureDensity(3),
    "mixture of 2": lambda key: MixtureDensity(2, 2),
    "autoregressive of 2": lambda key: Autoregressive.init(2, key=key, **LITTLE),
    "flow": lambda key: Flow.init(1, bins=4, draws=32, key=key),
    "flow of 2": lambda key: Flow.init(2, bins=3, key=key, **LITTLE),
    "energy": lambda key: Energy.init(1, nodes=41, key=key, **LITTLE),
    "energy of 2": lambda key: Energy.init(2, noise=4, steps=4, key=key, **LITTLE),
    "implicit": lambda key: Implicit.init(1, key=key, **LITTLE),
    "adversarial of 2": lambda key: Implicit.init(2, objective="adversarial", key=key, **LITTLE),
}
# One pass for each of them. A gradient step, for which each is differentiated twice in its own
# tests, for one with a density, one with a normaliser and one that only samples.
SHAPED_CASES = [
    *(("cnp", head) for head in SHAPED),
    *(("maml", head) for head in ("flow", "energy", "adversarial of 2")),
    ("ensemble", "flow"),
    ("np", "implicit"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name,head", SHAPED_CASES)
def test_contract_of_heads(name, head, key):
    check_method(METHODS[name].init, head=SHAPED[head](key), **SMALL.get(name, dict(width=8)))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gaussian", "classes"])
def test_contract_of_the_control(head):
    bnn = METHODS["bnn"].init(
        Spec(2, HEADS[head]), key=jax.random.key(0), width=8, depth=1, steps=20, samples=2
    )
    check_learner(bnn, head=HEADS[head])


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gaussian", "classes"])
def test_contract_of_a_stack(head):
    made = [
        METHODS[n].init(Spec(2, HEADS[head]), key=jax.random.key(i), width=8)
        for i, n in enumerate(("maml", "cnp"))
    ]
    coefficients = jnp.asarray([[0.0, 0.5, 1.0], [0.3, -0.2, 0.0]])
    check_learner(METHODS["stack"].method(tuple(made), coefficients), head=HEADS[head])


@pytest.mark.quick("ProtoNet-head4-options4", "MatchingNet-head5-options5", "ALPaCA-head1-options1")
@pytest.mark.parametrize(
    "method,head,options",
    [
        (METHODS["alpaca"].method, Gaussian(2), dict(width=8, size=4)),
        (METHODS["alpaca"].method, Gaussian(1), dict(features="linear", noise_variance=0.1)),
        (
            METHODS["maml"].method,
            Gaussian(2, scale=jnp.asarray([0.5, 1.0])),
            dict(inner_lr=jnp.asarray(0.1), steps=2),
        ),
        (
            NP,
            Gaussian(1),
            dict(width=8, latent=4, samples=2, depth=1, encoder="deep set", objective="elbo"),
        ),
        (ProtoNet, Categorical(3), dict(width=8, pseudo_count=0.0)),
        (METHODS["matching"].method, Categorical(3), dict(width=8, pseudo_count=0.0, scale=1.0)),
        (Process, Gaussian(1), dict(kernel="rbf", width=0)),
        (Process, Gaussian(1), dict(kernel="linear", width=8, features=4)),
        (METHODS["gnp"].method, Gaussian(2), dict(width=8, depth=1, rank=4)),
        (METHODS["metaqda"].method, Categorical(3), dict(embedding=0)),
    ],
)
def test_contract_of_options(method, head, options):
    check_method(method, head=head, **options)


# Variants of what is checked above, each of which compiles for longer than most methods.
LONG_OPTIONS = {
    "diagonal": ("llama", dict(width=6, depth=1, structure="diagonal", precision=10.0)),
    "last layer": ("bmaml", dict(width=8, depth=1, steps=2, particles=3, subset="last_layer")),
    "kronecker": ("llama", dict(width=6, depth=1, structure="kronecker", steps=2)),
    "chaser": ("bmaml", dict(width=8, depth=1, steps=1, particles=2, objective="chaser")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG_OPTIONS)
def test_contract_of_long_options(name):
    method, options = LONG_OPTIONS[name]
    check_method(METHODS[method].init, **options)


def shapes(init, head, x_dim=2):
    """Shapes of a loss and of a predicted mean; nothing is compiled."""

    def look(key):
        method = init(Spec(x_dim, head), key=key)
        task = example_task(key, head, x_dim, 4)
        predictive = method.posterior(task.support, key=key).predict(
            task.query.x, key=key, samples=3
        )
        return method.loss(task, key=key), predictive.mean()

    return eqx.filter_eval_shape(look, jax.random.key(0))


@pytest.mark.parametrize("name", LONG_OPTIONS)
def test_long_options_have_a_loss_and_a_posterior(name):
    method, options = LONG_OPTIONS[name]
    loss, mean = shapes(partial(METHODS[method].init, **options), Gaussian(1))
    assert loss.shape == () and mean.shape == (5, 1)


class Broken(AbstractMethod):
    """A network that ignores its support, and goes wrong on request."""

    net: eqx.nn.MLP
    head: AbstractHead
    spare: jax.Array
    fault: str = eqx.field(static=True)

    @classmethod
    def init(cls, spec, *, key, fault):
        return cls(mlp(spec.x_dim, spec.head.raw_dim, 4, 1, key=key), spec.head, jnp.ones(2), fault)

    def shift(self, support):
        if self.fault == "padding":
            return support.y.mean()
        if self.fault == "empty":
            return jnp.where(support.mask, support.y[:, 0], 0.0).sum() / support.count
        if self.fault == "order":
            return jnp.where(support.mask[0], support.y[0, 0], 0.0)
        return jnp.zeros(())

    def loss(self, task, *, key):
        net = (
            self.net
            if self.fault == "spare"
            else eqx.tree_at(
                lambda n: n.layers[0].bias, self.net, replace_fn=lambda b: b * self.spare[0]
            )
        )
        if self.fault == "gradient":
            return jnp.sqrt(((self.spare - self.spare) ** 2).sum()) + apply(net, task.query.x).sum()
        params = self.head.params(apply(net, task.query.x))
        return -task.query.mean(self.head.log_prob(params, task.query.y))

    def posterior(self, support, *, key):
        return Particles.single(
            (self.net, self.shift(support)), lambda w, x: apply(w[0], x) + w[1], self.head
        )


@pytest.mark.parametrize(
    "fault,message",
    [
        ("spare", "no task depends on spare"),
        ("gradient", "gradient of spare is not finite"),
        ("empty", "empty support must give the prior"),
        ("padding", "does not go through the mask"),
        ("order", "order of the support rows"),
    ],
)
def test_contract_notices(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_method(Broken, fault=fault)


def test_contract_accepts_what_is_declared():
    check_method(Broken, fault="spare", untrained=("spare",))
    check_method(Broken, fault="order", ordered=True)


@pytest.mark.quick("anp", "llama", "abml", "platipus", "process")
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.trainable])
def test_any_row_makes_an_ensemble(name):
    head = Gaussian(1) if "numbers" in METHODS[name].kinds else Categorical(3)
    options = {"members": 2} | SMALL.get(name, dict(width=8))
    init = partial(METHODS["ensemble"].init, base=name, **options)
    loss, mean = shapes(init, head, columns(name))
    assert loss.shape == () and mean.shape == (5, head.classes or 1)


def test_unknown_method_is_named():
    from metaprior.methods import get

    assert get("maml").method is MAML
    with pytest.raises(ValueError, match="did you mean 'protonet'"):
        get("protonets")


@pytest.mark.parametrize(
    "name,kind,head",
    [
        ("protonet", "classes", Gaussian(1)),
        ("alpaca", "numbers", Categorical(2)),
        ("convcnp", "numbers", Categorical(2)),
    ],
)
def test_wrong_head_is_refused(name, kind, head, key):
    with pytest.raises((TypeError, ValueError), match=f"predicts {kind}"):
        METHODS[name].init(Spec(2, head), key=key)

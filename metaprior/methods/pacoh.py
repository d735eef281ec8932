"""PACOH: a hyper-posterior over priors, weighed by how many tasks and rows there are."""

import dataclasses
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.functional import FunctionPrior
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.svgd import steered, svgd
from metaprior.infer.variational import draw
from metaprior.method import AbstractGenerative, AbstractMethod, Spec
from metaprior.methods.ensemble import Ensemble
from metaprior.methods.nuts import NUTS
from metaprior.methods.process import Process
from metaprior.mixture import log_sum
from metaprior.nets.kernels import Deep, Dot, Modulated
from metaprior.nets.means import Mean
from metaprior.nets.mlp import apply, network, zero_last
from metaprior.posterior import AbstractPosterior, Particles
from metaprior.system.devices import over_particles
from metaprior.task import Data, Task

FAMILIES, POSTERIORS, ADAPTATIONS = ("gp", "nn"), ("map", "svgd", "vi"), ("svgd", "nuts")


class WeightPrior(AbstractGenerative, AbstractMethod):
    """A normal prior over the weights of a network, judged by its evidence: `family="nn"`.

    The loss is -1/m log Z, where log Z = log 1/L sum_l exp(√m · mean_j log p(y_j | x_j, φ_l)) with
    draws φ_l of the prior (PACOH section 5.2). Given a support the weights are particles of the
    exact posterior p(φ | θ) prod_j p(y_j | x_j, φ): by SVGD, under Adam and in units of the prior's
    spread, or by NUTS.

    Args:
        prior: N(μ, σ²) over the network's weights.
        head: what is predicted.

    Other fields are settings of `PACOH.init`.
    """

    prior: Diagonal
    head: AbstractHead
    draws: int = eqx.field(static=True)
    adaptation: str = eqx.field(static=True)
    particles: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 32,
        depth: int = 2,
        std: float = 0.05,
        draws: int = 10,
        adaptation: str = "svgd",
        particles: int = 5,
        steps: int = 300,
        rate: float = 0.05,
    ) -> Self:
        """A prior around a random network; the arguments are explained by `PACOH.init`."""
        if adaptation not in ADAPTATIONS:
            raise ValueError(f"PACOH adapts networks by 'svgd' or by 'nuts'; got {adaptation!r}.")
        if draws < 1 or particles < 1:
            raise ValueError(
                "PACOH needs at least 1 draw for an evidence and 1 particle of the weights; got "
                f"draws={draws} and particles={particles}."
            )
        net = network(spec, spec.head.raw_dim, width, depth, key=key, activation=jnp.tanh)
        prior = Diagonal.around(net, std)
        return cls(prior, spec.head, draws, adaptation, particles, steps, rate)

    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs of a network with weights `w`."""
        return apply(w, x)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        rows, draw_key, head_key = task.union, *jr.split(key)

        def log_likelihood(k):
            return -self.head.risk(apply(draw(self.prior, k), rows.x), rows, key=head_key)

        each = jax.vmap(log_likelihood)(over_particles(jr.split(draw_key, self.draws)))
        m = jnp.maximum(rows.count, 1).astype(each.dtype)
        return (jnp.log(float(self.draws)) - log_sum(jnp.sqrt(m) * each)) / m

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> AbstractPosterior:
        if self.adaptation == "nuts":
            return NUTS(self, 300, 250, 4, False).posterior(support, key=key)
        start_key, head_key = jr.split(key)
        mean, fixed = eqx.partition(self.prior.mean, eqx.is_inexact_array)

        def weights(v):
            """w of distances from the prior's mean in units of its spread."""
            moved = jax.tree.map(lambda m, s, d: m + jnp.exp(s) * d, mean, self.prior.log_std, v)
            return eqx.combine(moved, fixed)

        zero = jax.tree.map(jnp.zeros_like, mean)
        unit = Diagonal(zero, zero)
        n = jnp.maximum(support.count, 1).astype(jnp.result_type(*jax.tree.leaves(zero)))

        def log_prob(v):
            risk = self.head.risk(apply(weights(v), support.x), support, key=head_key)
            return -risk + unit.log_prob(v) / n

        start = jax.vmap(lambda k: unit.sample(key=k))(jr.split(start_key, self.particles))
        adam = optax.adam(optax.cosine_decay_schedule(self.rate, max(self.steps, 1)))
        found = svgd(log_prob, start, adam, self.steps, repulsion=1 / n)
        # Without rows they stay draws of the prior.
        found = jax.tree.map(lambda a, b: jnp.where(support.count > 0, a, b), found, start)
        return Particles(eqx.filter_vmap(weights)(found), apply, self.head)


def _process(
    spec: Spec, *, key: PRNGKeyArray, kernel: str = "structured", width: int = 32, **hyper: Any
) -> Process:
    """A process; with one kernel it has a network as its mean too, as the paper's."""
    base = Process.init(spec, key=key, kernel=kernel, width=width, **hyper)
    if kernel == "structured":
        return base
    mean = Mean.init(spec, degree=0, width=width, key=jr.fold_in(key, 1))
    return dataclasses.replace(base, mean=mean)


def _departing(spec: Spec, plain: FunctionPrior, *, key: PRNGKeyArray, width: int = 32) -> Process:
    """A Gaussian process that starts as the plain one, and can depart from it anywhere.

    Its mean is a network, as is the factor by which its standard deviation differs, and a linear
    kernel on features holds what tasks have in common within their range.
    """
    base, d = Process.init(spec, kernel="rbf", width=0, key=key), spec.x_dim
    mean_key, factor_key, deep_key = jr.split(key, 3)
    factor = zero_last(eqx.nn.MLP(d, 1, width, 2, activation=jnp.tanh, key=factor_key))
    net = eqx.nn.MLP(d, 16, width, 2, activation=jnp.tanh, final_activation=jnp.tanh, key=deep_key)
    kernels = (
        Modulated(factor, plain.kernel(d)),
        Deep(net, Dot(jnp.log(jnp.asarray(0.1 / 4)))),
    )
    mean = Mean.init(spec, degree=0, width=width, key=mean_key)
    return dataclasses.replace(base, mean=mean, kernels=kernels)


def _centre(base: AbstractMethod) -> AbstractMethod:
    """Where the hyper-prior has its mean: networks at zero, all else where it starts."""

    def zero(tree):
        return jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_inexact_array(a) else a, tree)

    if isinstance(base, WeightPrior):
        # Its spread has the form of a network too, and stays.
        return eqx.tree_at(lambda b: b.prior.mean, base, zero(base.prior.mean))

    def layer(node):
        return isinstance(node, eqx.nn.Linear | eqx.nn.Conv)

    return jax.tree.map(lambda node: zero(node) if layer(node) else node, base, is_leaf=layer)


def _pulled(value: Array, term: Array) -> Array:
    """`value`, with the derivative of `value + term`."""
    return value + term - jax.lax.stop_gradient(term)


class PACOH(AbstractMethod):
    """Rothfuss, Fortuin, Josifoski & Krause, "PACOH", ICML 2021: bounded trust in few tasks.

    θ is a prior: a `Process` (`family="gp"`) or a normal over the weights of a network (`"nn"`).
    With T training tasks of m_i rows the hyper-posterior of the least PAC-Bayes bound is

        log Q*(θ) = log P(θ) + sum_i c_i log Z_i(θ) + const,  c_i = 1 / (√(T m_i) + 1),

    where log Z_i is the evidence of all rows of a task. There is no inner loop. Q is the most
    probable θ (`q="map"`), particles by SVGD (`"svgd"`) or a diagonal normal (`"vi"`). The answer
    on a new task is that of each θ, mixed with equal weights.

    The hyper-prior P is normal: around zero for networks, around where they start for the other
    numbers. With `functional=True` it is a statement on functions in its place (Rothfuss, Heyn,
    Chen & Krause, "Meta-Learning Reliable Priors in the Function Space", NeurIPS 2021):

        J(θ) = 1/T sum_i [ -1/m_i log Z_i(θ) + κ (1/√T + 1/(T m_i)) E_X KL(p_θ(f(X)) ‖ GP(X)) ]

    pulls the process to a plain Gaussian process (`FunctionPrior`) at sets X of points, half of
    them a task's own. Both are one form, which the loss has, times a constant:

        weight_i (-log Z_i) + pull_i (-log P),  s = 1/√T,
        weight_i = 1 / (√m_i + s) and pull_i = s;  functional: 1/m_i and s + s²/m_i.

    T is `Spec.tasks`. Where it is unknown s is 0, the limit of a stream of tasks without end: then
    neither hyper-prior counts. The loss has the value of its first term, so that held-out tasks
    judge what is said of rows; the others are in its gradient.

    Args:
        theta: what Q is made of: a prior, stacked priors, or a `Diagonal` over a prior.
        hyperprior: P, a `Diagonal` over a prior, or `None`; never trained.
        function_prior: the plain process in its place, or `None`.
        tasks: T, or `None`.
        q: `"map"`, `"svgd"` or `"vi"`.
        members: draws of θ for a posterior by VI.
        kappa: κ.

    Example:
        >>> import jax, metaprior
        >>> spec = metaprior.Spec(1, metaprior.heads.Gaussian(1), tasks=20)
        >>> pacoh = metaprior.methods.PACOH.init(spec, q="map", key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = pacoh.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    theta: Any
    hyperprior: Any
    function_prior: FunctionPrior | None
    tasks: Int[Array, ""] | None
    q: str = eqx.field(static=True)
    members: int = eqx.field(static=True)
    kappa: float = eqx.field(static=True)

    untrained = ("hyperprior",)

    @property
    def learning_rate(self) -> float:
        """That of a process; of a network 1e-2, with which it ends nearer than with 3e-3."""
        return 1e-2 if isinstance(self._prior, WeightPrior) else self._prior.learning_rate

    @property
    def _prior(self) -> AbstractMethod:
        return self.theta.mean if self.q == "vi" else self.theta

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        family: str = "gp",
        q: str = "map",
        members: int = 3,
        hyper_std: float = 2.0,
        spread: float = 0.02,
        functional: bool = False,
        kappa: float = 0.1,
        function_prior: FunctionPrior = FunctionPrior(),
        **hyper: Any,
    ) -> Self:
        """An untrained hyper-posterior.

        Args:
            spec: shape of the tasks, and how many there will be.
            key: initial values.
            family: `"gp"` or `"nn"`.
            q: `"map"` (default), `"svgd"` or `"vi"`. On PACOH's Cauchy tasks, 20 to train on, three
                networks by SVGD had an RMSE of 0.29 and the most probable one 0.24: particles of
                thousands of weights are driven apart for nothing.
            members: particles of SVGD, or draws of θ by VI, at least 1.
            hyper_std: standard deviation of the hyper-prior, above 0 (2: on other Cauchy tasks, 20
                to train on, NLL -0.12, -0.23, -0.25, -0.22 and -0.09 with 0.5, 1, 2, 4 and 30).
            spread: standard deviation with which VI starts, above 0.
            functional: whether the hyper-prior is `function_prior`; for processes and numbers.
            kappa: κ (0.1: the authors' code).
            function_prior: see `FunctionPrior`.
            hyper: of processes options of `Process.init`; with `functional` the `width` (32) of the
                networks of a process that starts as `function_prior`; of networks `width` and
                `depth` (32 and 2), `std` (of the prior at first, 0.05), `draws` (L, 10), and how
                they adapt: `adaptation` (`"svgd"` or `"nuts"`), `particles` (5, the authors'
                code), `steps` and `rate` of Adam (300 and 0.05).
        """
        if family not in FAMILIES:
            raise ValueError(f"PACOH has the families 'gp' and 'nn'; got {family!r}.")
        if q not in POSTERIORS:
            raise ValueError(f"PACOH has the posteriors 'map', 'svgd' and 'vi'; got q={q!r}.")
        if members < 1:
            raise ValueError(f"PACOH takes at least 1 member; got {members}.")
        if not (hyper_std > 0 and spread > 0 and kappa >= 0):
            raise ValueError(
                "PACOH takes hyper_std and spread above 0 and kappa of at least 0; got "
                f"{hyper_std}, {spread} and {kappa}."
            )
        if functional and (family != "gp" or spec.head.classes):
            raise ValueError(
                "PACOH's functional hyper-prior compares Gaussian processes of numbers; got the "
                f"family {family!r} and the head {type(spec.head).__name__}."
            )

        def make(k):
            if functional:
                return _departing(spec, function_prior, key=k, **hyper)
            return (_process if family == "gp" else WeightPrior.init)(spec, key=k, **hyper)

        base = make(key)
        hyperprior = None if functional else Diagonal.around(_centre(base), hyper_std)
        if q == "svgd":
            base = eqx.filter_vmap(make)(jr.split(key, members))
        elif q == "vi":
            base = Diagonal.around(base, spread)
        plain = function_prior if functional else None
        tasks = None if spec.tasks is None else jnp.asarray(spec.tasks)
        return cls(base, hyperprior, plain, tasks, q, members, kappa)

    def _weights(self, task: Task) -> tuple[Array, Array]:
        """Of the evidence of a row, and of the hyper-prior: see the class."""
        m = jnp.maximum(task.union.count, 1).astype(task.support.y.dtype)
        s = jnp.zeros_like(m)
        if self.tasks is not None:
            s = 1 / jnp.sqrt(self.tasks.astype(m.dtype))
        if self.function_prior is None:
            return m / (jnp.sqrt(m) + s), s
        return jnp.ones_like(m), s + s * s / m

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        loss_key, x_key, q_key = jr.split(key, 3)
        weight, pull = self._weights(task)

        def judged(theta, k):
            """Of one θ: its value and the hyper-prior's pull."""
            value = weight * theta.loss(task, key=k)
            if self.function_prior is not None:
                kl = self.function_prior.kl(theta, task.union, key=x_key)
                return _pulled(value, self.kappa * pull * kl)
            if self.hyperprior is None or self.q == "vi":
                return value
            return _pulled(value, -pull * self.hyperprior.log_prob(theta))

        def mean(thetas):
            keys = jr.split(loss_key, self.members)
            each = eqx.filter_vmap(judged, in_axes=(eqx.if_array(0), 0))
            return each(over_particles(thetas), keys).mean()

        if self.q == "map":
            return judged(self.theta, loss_key)
        if self.q == "svgd":
            return steered(mean, self.theta, pull)
        value = mean(self._drawn(q_key))
        if self.function_prior is None:
            return _pulled(value, pull * self.theta.kl(self.hyperprior))
        entropy = sum(a.sum() for a in jax.tree.leaves(self.theta.log_std))
        return _pulled(value, -self.kappa * pull * entropy)

    def _drawn(self, key: PRNGKeyArray) -> Any:
        """Draws of θ by VI, stacked."""
        return eqx.filter_vmap(lambda k: draw(self.theta, k))(jr.split(key, self.members))

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> AbstractPosterior:
        if self.q == "map":
            return self.theta.posterior(support, key=key)
        q_key, key = jr.split(key)
        thetas = self.theta if self.q == "svgd" else self._drawn(q_key)
        return Ensemble(thetas).posterior(support, key=key)

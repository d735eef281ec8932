"""metaprior's side: through its public interface, as a user would."""

import functools
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import metaprior
from benchmarks import cases
from benchmarks.cases import SHOTS, Case
from metaprior import Spec
from metaprior.heads import Categorical, Gaussian
from metaprior.methods import METHODS
from metaprior.nets.conv import Conv4
from metaprior.system.devices import cores, mesh_of
from metaprior.training import adam

RATE = 1e-3  # of Adam, on all sides


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Images of noise, 50 classes of 20, and their labels; speed does not depend on the picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 28, 28, 1), np.uint8)
    return pixels, np.repeat(np.arange(50), 20)


def source_of(case: Case) -> Any:
    support, query = SHOTS[case.kind]
    if case.kind == "sinusoid":
        return metaprior.sources.Sinusoid(support, query)
    if case.kind == "gp":
        return metaprior.sources.GP("eq", support=support, query=query, fewest=None)
    return metaprior.sources.Episodes.of(*pictures(), way=5, shot=1, query=1)


def method_of(case: Case, plain: bool = True) -> Any:
    """The method in the peers' mathematics, or as it comes."""
    # A fixed scale of sqrt(1/2) makes -log p the squared error, as in the peers, plus a constant.
    head: Any = Gaussian(1, scale=0.5**0.5 if plain and case.kind == "sinusoid" else None)
    spec = Spec(1, head)
    if case.kind == "images":
        net = functools.partial(Conv4.init, size=28, pooled=case.row == "protonet")
        spec = Spec(784, Categorical(5), net=net)
    options = case.plain if plain else case.defaults or {}
    return eqx.filter_jit(METHODS[case.row].init)(spec, key=jax.random.key(0), **options)


@eqx.filter_jit
def _predict(method, support, x, key, samples):
    return method.posterior(support, key=key).predict(x, key=key, samples=samples).mean()


class Ours:
    """Meta-trains in chunks of about half a second, and adapts to one task."""

    def __init__(self, case: Case, plain: bool = True, gpu: bool = False) -> None:
        # Each core that the process may use becomes a device, with a share of the tasks.
        cores(case.batch)
        self.mesh = mesh_of("all", case.batch)
        self.case, self.source, self.method = case, source_of(case), method_of(case, plain)
        options = case.plain if plain else case.defaults or {}
        self.samples = options.get(cases.many_of(case.row), 1)
        # One task after another suits the caches of a CPU.
        self.at_once = None if gpu else case.at_once
        # Plain Adam where peers have it. The schedule of the default optimiser is part of the
        # program, so it has one length for all chunks; the object is kept for the same reason.
        self.optimiser = optax.adam(RATE) if plain else adam(self.method.learning_rate, 10**6)
        self.state, self.done, self.chunk = None, 0, 1
        task = jax.device_get(self.source(jax.random.key(5)))
        self.support, self.x = task.support, np.asarray(task.query.x)
        self.key = jax.random.key(3)
        for _ in range(12):
            self.step()
        for _ in range(2):
            self.adapt()

    def step(self) -> int:
        """One chunk of meta-steps; how many tasks that was.

        A chunk that takes less than half a second grows. A call of `fit` asks the system for its
        memory anew, which takes as much as half a step of attention, and would count against it.
        """
        begin = time.perf_counter()
        done = self.chunk
        self.done += done
        fitted = metaprior.fit(
            self.method,
            self.source,
            key=jax.random.key(1),
            steps=self.done,
            batch=self.case.batch,
            every=done,
            state=self.state,
            at_once=self.at_once,
            mesh=self.mesh,
            optimiser=self.optimiser,
        )
        self.state = fitted.state
        if time.perf_counter() - begin < 0.5:
            self.chunk *= 2
        return done * self.case.batch

    def finish(self) -> None:
        """Nothing: a chunk ends when it is computed."""

    def adapt(self) -> None:
        """From the rows of a new task to predictions, as numpy arrays on both ends."""
        support = jax.tree.map(jnp.asarray, self.support)
        np.asarray(_predict(self.method, support, self.x, self.key, self.samples))

    def reference(self, path: str) -> None:
        """Weights, tasks, mean loss and its gradient, for the peers to compare theirs with."""
        keys = jax.random.split(jax.random.key(7), self.case.batch)
        tasks = jax.vmap(self.source)(keys)
        moving, rest = eqx.partition(self.method, eqx.is_inexact_array)

        @jax.jit
        def mean(moving):
            method = eqx.combine(moving, rest)
            return jax.lax.map(lambda pair: method.loss(pair[0], key=pair[1]), (tasks, keys)).mean()

        loss, gradient = jax.value_and_grad(mean)(moving)
        # -log p of the fixed scale is the squared error and a constant, which peers do not have.
        squared = self.case.kind == "sinusoid" and self.case.plain.get("objective") != "chaser"
        constant = 0.5 * np.log(np.pi) if squared else 0.0
        arrays = {f"w{i}": leaf for i, leaf in enumerate(jax.tree.leaves(moving))}
        arrays |= {f"g{i}": leaf for i, leaf in enumerate(jax.tree.leaves(gradient))}
        parts = {
            "sx": tasks.support.x,
            "sy": tasks.support.y,
            "qx": tasks.query.x,
            "qy": tasks.query.y,
        }
        np.savez(path, loss=loss - constant, **arrays, **parts)

    def work(self) -> dict[str, float]:
        """`flops` and `bytes` of matrix products, for one task of a meta-step, with its gradient.

        In `bytes`, weights that tasks share count once a step.
        """
        from benchmarks.flops import count, traffic

        moving, rest = eqx.partition(self.method, eqx.is_inexact_array)
        keys = jax.random.split(jax.random.key(0), self.case.batch)
        tasks = jax.vmap(self.source)(keys)

        def loss(m, task, key):
            return eqx.combine(m, rest).loss(task, key=key)

        def mean(m):
            return jax.vmap(lambda task, key: loss(m, task, key))(tasks, keys).mean()

        one = jax.tree.map(lambda a: a[0], tasks)
        moved = traffic(jax.value_and_grad(mean), moving) / self.case.batch
        return {"flops": count(jax.value_and_grad(loss), moving, one, keys[0]), "bytes": moved}

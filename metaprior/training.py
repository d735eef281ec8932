"""One trainer for every method: draw tasks, average their losses, step; all of it compiled."""

import math
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.method import AbstractMethod
from metaprior.system import devices
from metaprior.system.compiled import apart, full_precision, jit, least_effort
from metaprior.system.draws import quick_key
from metaprior.system.programs import kept, kept_once
from metaprior.task import Task

LOST = 10  # steps in a row without a finite loss that end a training
Source = Callable[[PRNGKeyArray], Task]
Method = TypeVar("Method", bound=AbstractMethod)


class State(eqx.Module):
    """Everything a run needs to continue bit for bit.

    With members, every leaf has a leading axis.
    """

    method: AbstractMethod
    optimiser: Any
    key: Array  # raw key data, so that it can be written to a file
    step: Int[Array, ""]
    best: AbstractMethod
    best_loss: Float[Array, ""]
    best_step: Int[Array, ""]
    skipped: Int[Array, ""]  # steps whose loss or gradient was not finite
    in_a_row: Int[Array, ""]  # such steps since the last good one

    @property
    def failed(self) -> np.ndarray:
        """Whether the training ended because nothing but such steps came; of each member."""
        return np.asarray(jax.device_get(self.in_a_row)) >= LOST  # there nothing compiles


class Fitted(eqx.Module, Generic[Method]):
    """What `fit` gives back.

    Args:
        method: the trained method: the best on the validation tasks where there were any, else the
            last.
        state: the state from which another call continues.
        steps: steps taken.
        losses: mean training loss of each compiled chunk (members last), in the method's own units.
        validation: validation loss after each chunk; empty without validation tasks.
        outcome: `"done"`, `"early stop"` or `"non-finite loss"`: ten steps in a row had none (then
            `method` is the last good one).
        seconds: wall-clock time, compilation included.
    """

    method: Method
    state: State
    steps: int
    losses: list
    validation: list
    outcome: str
    seconds: float

    @property
    def skipped(self) -> int:
        """Steps that changed nothing, as their loss or gradient was not finite; of members the
        most.
        """
        return _most(self.state.skipped)


def _mean_loss(method, tasks, keys, at_once, mesh):
    arrays, rest = eqx.partition(method, eqx.is_array)
    leaves, shape = jax.tree.flatten(tasks)

    def each(arrays, leaves, keys):
        def one(task, k):
            return eqx.combine(arrays, rest).loss(task, key=k)

        pairs = jax.tree.unflatten(shape, leaves), keys
        if at_once is None:
            return jax.vmap(one)(*pairs)
        return jax.lax.map(lambda pair: one(*pair), pairs, batch_size=at_once)

    if mesh is None:
        return each(arrays, leaves, keys).mean()

    def weighted(arrays, *parts):
        *leaves, keys, weights = parts
        losses = each(arrays, leaves, keys)
        return (weights.astype(losses.dtype) * losses).sum()

    return devices.spread(weighted, mesh)(arrays, *leaves, keys)


def _gradient(params, rest, source, keys, at_once, mesh):
    """Mean loss over new tasks and its gradient.

    `at_once` tasks are computed side by side, so that only theirs are in memory.
    """
    arrays, static = eqx.partition((rest, source), eqx.is_array)

    def weighted(whole, task_keys, loss_keys, weights):
        params, arrays = whole
        rest, source = eqx.combine(arrays, static)
        tasks, count = apart(jax.vmap(source))(task_keys), weights.shape[0]

        def part(tasks, keys, weights):
            def loss(params):
                method = eqx.combine(params, rest)
                each = jax.vmap(lambda task, k: method.loss(task, key=k))(tasks, keys)
                return (weights.astype(each.dtype) * each).sum()

            return jax.value_and_grad(loss)(params)

        size = count if at_once is None else math.gcd(at_once, count)
        if size == count:
            return part(tasks, loss_keys, weights)
        parts = jax.tree.map(
            lambda a: a.reshape(count // size, size, *a.shape[1:]), (tasks, loss_keys, weights)
        )
        shape = jax.eval_shape(lambda p: part(*p), jax.tree.map(lambda a: a[0], parts))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
        return jax.lax.scan(
            lambda total, p: (jax.tree.map(jnp.add, total, part(*p)), None), zero, parts
        )[0]

    return devices.spread(weighted, mesh)((params, arrays), *keys)


@kept_once
def _start_members(method, key, optimiser, members):
    def begin(m, k):
        return _begin(m, k, optimiser)

    return eqx.filter_vmap(begin, in_axes=(eqx.if_array(0), 0))(method, jr.split(key, members))


def _begin(method, key, optimiser):
    # Weak types (arrays made from Python numbers) would compile the step twice.
    method = jax.tree.map(lambda a: jnp.array(a, a.dtype) if eqx.is_array(a) else a, method)
    arrays = eqx.filter(method, eqx.is_inexact_array)
    zero, worst = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, jnp.result_type(float))
    return State(
        method,
        optimiser.init(arrays),
        jr.key_data(key),
        zero,
        method,
        worst,
        zero,
        zero,
        zero,
    )


_start_one = jit(_begin, least_effort)


def _chunk(state, source, validation, optimiser, steps, batch, at_once, mesh):
    """`steps` (traced: one program for any number) optimiser steps and one look at the validation
    tasks.
    """
    validate_key = jr.key(0)  # the same noise at every look, so that looks can be compared
    params, rest = eqx.partition(state.method, eqx.is_inexact_array)

    def step(_, carry):
        params, opt_state, key, skipped, in_a_row, total, count = carry
        key, task_key, loss_key = jr.split(key, 3)
        keys = jr.split(task_key, batch), jr.split(loss_key, batch)
        loss, grads = _gradient(params, rest, source, keys, at_once, mesh)
        going = in_a_row < LOST
        good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads)) & going
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes in clipping and adam
            updates, new_opt = optimiser.update(grads, opt_state, params)
        new_params = optax.apply_updates(params, updates)

        def keep(new, old):
            return jnp.where(good, new, old)

        params = jax.tree.map(keep, new_params, params)
        opt_state = jax.tree.map(keep, new_opt, opt_state)
        return (
            params,
            opt_state,
            key,
            skipped + (going & ~good),
            jnp.where(good, 0, in_a_row + 1),
            total + jnp.where(good, loss, 0.0),
            count + good.astype(loss.dtype),
        )

    zero = jnp.zeros((), state.best_loss.dtype)
    seen = state.skipped, state.in_a_row
    carry = (params, state.optimiser, quick_key(state.key), *seen, zero, zero)
    params, opt_state, key, *seen, total, count = jax.lax.fori_loop(0, steps, step, carry)
    method = eqx.combine(params, rest)
    done = state.step + steps
    if validation is None:
        best, best_loss, best_step, loss = method, state.best_loss, done, jnp.nan
    else:
        keys = jr.split(validate_key, jax.tree.leaves(validation)[0].shape[0])
        loss = _mean_loss(method, validation, keys, at_once, mesh)
        better = loss < state.best_loss

        def pick(new, old):
            return jnp.where(better, new, old) if eqx.is_array(new) else new

        best = jax.tree.map(pick, method, state.best)
        best_loss = jnp.where(better, loss, state.best_loss)
        best_step = jnp.where(better, done, state.best_step)
    new = State(method, opt_state, jr.key_data(key), done, best, best_loss, best_step, *seen)
    return new, total / count, loss


def _run(state, source, validation, axes, optimiser, steps, batch, at_once, mesh):
    def one(state, source, validation):
        return _chunk(state, source, validation, optimiser, steps, batch, at_once, mesh)

    if axes is None:
        return devices.whole(one(state, source, validation), mesh)
    leaf = eqx.if_array(0)
    members = eqx.filter_vmap(one, in_axes=(leaf, axes, leaf))
    return devices.whole(members(state, source, validation), mesh)


_run_one = eqx.filter_jit(_run)


# Members are dense networks, which lose nothing by a quicker compile; pictures would. To trace it
# takes as long as 200 steps.
_run_members = kept(_run)


class Adam(eqx.Module):
    """Adam with cosine decay to a tenth, and the gradient's norm clipped: what `fit` uses.

    It has the methods of an optax transformation. Its numbers are arrays, so that one compiled
    program serves any of them.

    Args:
        learning_rate: at the first step.
        steps: until it is a tenth of that.
        clip: greatest norm of a gradient.
        momentum: first decay rate.
    """

    learning_rate: Float[np.ndarray, ""]
    steps: Float[np.ndarray, ""]
    clip: float = eqx.field(static=True)
    momentum: float = eqx.field(static=True)

    def _chain(self) -> optax.GradientTransformation:
        def rate(count):
            done = jnp.minimum(count.astype(self.steps.dtype), self.steps) / self.steps
            return self.learning_rate * (0.1 + 0.45 * (1 + jnp.cos(jnp.pi * done)))

        # As one vector: the program of a small network is a fifth smaller.
        clip, step = optax.clip_by_global_norm(self.clip), optax.adam(rate, b1=self.momentum)
        return optax.flatten(optax.chain(clip, step))

    def init(self, params: Any) -> Any:
        """The state before the first step."""
        return self._chain().init(params)

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """What to add to the parameters, and the state after it."""
        return self._chain().update(updates, state, params)


def adam(learning_rate: float, steps: int, clip: float = 10.0, momentum: float = 0.9) -> Adam:
    """The `Adam` for so many steps."""
    kind = jnp.result_type(float)
    return Adam(np.asarray(learning_rate, kind), np.asarray(steps, kind), clip, momentum)


def _momentum(method) -> float:
    """The least that a head of the method asks for."""
    parts = jax.tree.leaves(method, is_leaf=lambda part: isinstance(part, AbstractHead))
    return min((p.momentum for p in parts if isinstance(p, AbstractHead)), default=0.9)


def _shown(loss: Any) -> float:
    """The mean over members, of those whose loss is a number."""
    known = np.atleast_1d(loss)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan


def _most(steps: Array) -> int:
    """The largest, taken on the host: there it compiles nothing."""
    return int(np.max(jax.device_get(steps)))


@full_precision
def fit(
    method: Method,
    source: Source,
    *,
    key: PRNGKeyArray,
    steps: int = 2000,
    batch: int = 16,
    learning_rate: float | None = None,
    optimiser: optax.GradientTransformation | Adam | None = None,
    validation: Task | None = None,
    every: int = 100,
    patience: int | None = None,
    axes: Any = None,
    state: State | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    save: Callable[[State], None] | None = None,
    at_once: int | None = None,
    mesh: Mesh | None = None,
) -> Fitted[Method]:
    """Meta-train a method: minimise its loss averaged over tasks from `source`.

    Args:
        method: from its class's `init`; it is not changed.
        source: `key -> Task`; drawn inside the compiled step.
        key: for tasks, the method's own noise, everything.
        steps: most optimiser steps to take.
        batch: tasks a step (25 in MAML's sinusoid; more gains little on two cores).
        learning_rate: of `adam`; ignored when an `optimiser` is given. `None` (default): the
            method's own, `method.learning_rate`. The momentum is the one its head asks for.
        optimiser: any optax transformation.
        validation: tasks stacked on a leading axis; the best method on them is returned.
        every: steps in one compiled chunk, between looks at `validation`.
        patience: stop when no member has improved for this many steps; `None` never stops early.
        axes: train several members at once: every array of `method` (and of `validation`) has a
            leading member axis, and `axes` says, as in `jax.vmap`, which arrays of `source` have.
        state: continue from here (`Fitted.state`), to the same bits as an uninterrupted run.
        progress: called with `(step, steps, loss)` after each chunk.
        save: called with the state after each chunk.
        at_once: tasks computed side by side, `None` for all; a divisor of `batch`. One or two are
            quickest where a task fills the machine by itself, as images do, and need the least
            memory.
        mesh: from `metaprior.system.devices.mesh_of`: the tasks of a step are computed on all its
            devices, with the results of one device up to the order of sums. A state from any number
            of devices continues on any other.

    Returns:
        a `Fitted`. A step without a finite loss is skipped and counted; ten in a row end the run,
        which is reported in `outcome`, not raised.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> maml = metaprior.methods.MAML.init(spec, key=jax.random.key(0))
        >>> source = metaprior.sources.Sinusoid()
        >>> fitted = metaprior.fit(maml, source, key=jax.random.key(1), steps=20, every=10)
        >>> fitted.outcome
        'done'
    """
    if steps < 1 or batch < 1 or every < 1:
        raise ValueError(
            f"fit takes steps, batch and every of at least 1; got {steps}, {batch} and {every}."
        )
    if at_once is not None and (at_once < 1 or batch % at_once):
        raise ValueError(f"fit takes at_once that divides batch = {batch}; got {at_once}.")
    begin = time.perf_counter()
    if optimiser is None:
        rate = method.learning_rate if learning_rate is None else learning_rate
        optimiser = adam(rate, steps, momentum=_momentum(method))
    run = _run_one if axes is None else _run_members
    new = state is None
    if new:
        if axes is None:
            state = _start_one(method, key, optimiser)
        else:
            members = jax.tree.leaves(eqx.filter(method, eqx.is_array))[0].shape[0]
            state = _start_members(method, key, optimiser, members)
    state, source, validation = devices.replicate((state, source, validation), mesh)
    if new and validation is not None:  # the untrained method competes too
        state = run(state, source, validation, axes, optimiser, np.int32(0), batch, at_once, mesh)[
            0
        ]
    losses, looks, outcome = [], [], "done"
    done = _most(state.step)
    while done < steps:
        size = min(every, steps - done)
        state, loss, look = run(
            state, source, validation, axes, optimiser, np.int32(size), batch, at_once, mesh
        )
        done += size
        losses.append(jax.device_get(loss))
        if validation is not None:
            looks.append(jax.device_get(look))
        if save is not None:
            save(devices.local(state, mesh))
        if progress is not None:
            progress(done, steps, _shown(losses[-1]))
        if state.failed.all():
            outcome = "non-finite loss"
            break
        if patience is not None and done - _most(state.best_step) >= patience:
            outcome = "early stop"
            break
    state = devices.local(state, mesh)
    method = state.method if validation is None else state.best
    return Fitted(method, state, done, losses, looks, outcome, time.perf_counter() - begin)

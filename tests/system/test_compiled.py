"""How our own programs are compiled: the same values and derivatives, whatever the form."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior.system import compiled


@pytest.mark.parametrize(("chosen", "inside"), [(None, "highest"), ("tensorfloat32",) * 2])
def test_products_are_full_float32_unless_chosen(chosen, inside):
    """Within our own programs, and nowhere else."""

    @compiled.jit
    def product(a):
        return a @ a, jax.config.jax_default_matmul_precision

    with jax.default_matmul_precision(chosen):
        found = product(jnp.ones((2, 2)))[1]
        assert found == inside and jax.config.jax_default_matmul_precision == chosen


@pytest.mark.parametrize(
    "flags,platform,chosen",
    [
        ("", "cpu", True),
        ("--xla_force_host_platform_device_count=4", "cpu", True),
        ("--xla_backend_optimization_level=3", "cpu", False),  # a user's own choice
        ("", "gpu", False),
        ("", "tpu", False),
    ],
)
def test_effort_of_compiling(monkeypatch, flags, platform, chosen):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    options = compiled.effort()
    assert bool(options) == chosen
    monkeypatch.undo()
    # XLA does not take an option that it does not know.
    assert jax.jit(jnp.sin, **options)(0.0) == 0.0


def test_jit_compiles_once_with_the_effort_of_the_first_call(monkeypatch):
    asked, traced = [], []
    monkeypatch.setattr(compiled, "effort", lambda: asked.append(1) or {})

    def double(x, name):
        traced.append(name)
        return 2 * x

    call = compiled.jit(double)
    assert not asked and call.__name__ == "double"
    assert [float(call(jnp.float32(x), "a")) for x in (1, 2)] == [2, 4] and traced == ["a"]
    assert float(call(jnp.float32(1), "b")) == 2 and traced == ["a", "b"] and len(asked) == 1


def _residual(net, x):
    """A residual row normalised, twice: what is elementwise is read by two products."""
    for weight in net:
        x = x + jnp.tanh(NORM(x) @ weight)
    return (x * x).sum()


def _norm(x):
    return (x - x.mean()) * jax.lax.rsqrt(x.var() + 1e-3)


NORM = compiled.apart(_norm)
DERIVATIVES = {
    "value": lambda f: f,
    "backwards": jax.grad,
    "forwards": lambda f: lambda net, x: jax.jvp(functools.partial(f, net), (x,), (jnp.cos(x),))[1],
    "forwards of backwards": lambda f: (
        lambda net, x: jax.jvp(lambda n: jax.grad(f)(n, x), (net,), (net,))[1]
    ),
    "backwards of backwards": lambda f: jax.grad(
        lambda net, x: sum((g * g).sum() for g in jax.grad(f)(net, x))
    ),
    "remade": lambda f: jax.grad(jax.checkpoint(f)),
}


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_what_is_apart_has_the_same_values_and_derivatives(name, jitted, monkeypatch, x64):
    net = list(jr.normal(jr.key(0), (2, 4, 4)))
    rows = jr.normal(jr.key(1), (3, 4))

    def found():
        many = jax.vmap(DERIVATIVES[name](_residual), (None, 0))
        return (jax.jit(many) if jitted else many)(net, rows)

    apart = found()
    monkeypatch.setitem(globals(), "NORM", _norm)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10), apart, found())


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_what_is_apart_is_a_call_in_the_compiled_program_of_cpus(platform, monkeypatch):
    """Two forwards and one backwards, as nobody asks for the first one's input; no value tells
    whether they are there.
    """
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    gradient = jax.vmap(jax.grad(lambda net, x: _residual(net, x)), (None, 0))
    text = jax.jit(gradient).lower(list(jnp.ones((2, 4, 4))), jnp.ones((3, 4))).compile().as_text()
    assert text.count(" call(") == (3 if platform == "cpu" else 0)


def test_only_what_is_asked_is_apart():
    """What it calls, compiled on its own too, belongs to it."""
    inside = jax.jit(lambda x: jnp.sin(x) * 2)
    text = jax.jit(compiled.apart(lambda x: inside(x) + 1)).lower(jnp.ones(3)).compile().as_text()
    assert text.count(" call(") == 1

"""What JAX is told to do otherwise: the same values and derivatives, and no waiting for ever."""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import metaprior.system.compiled
from metaprior.training import _draw

SYMMETRIC = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
SYMMETRIC = (SYMMETRIC @ SYMMETRIC.swapaxes(-1, -2) + np.eye(4)).astype(np.float32)
RIGHT = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)

# what is asked of JAX, and numpy's answer for one matrix
ASKED = {
    "cholesky": (jnp.linalg.cholesky, lambda a, b: np.linalg.cholesky(a)),
    "triangular_solve": (
        lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True),
        lambda a, b: np.linalg.solve(np.tril(a), b),
    ),
    "lu": (jnp.linalg.solve, np.linalg.solve),
    "eigh": (lambda a, b: jnp.linalg.eigh(a)[0], lambda a, b: np.linalg.eigh(a)[0]),
    "svd": (
        lambda a, b: jnp.linalg.svd(b, compute_uv=False),
        lambda a, b: np.linalg.svd(b, compute_uv=False),
    ),
    "householder_product": (
        lambda a, b: jnp.abs(jnp.linalg.qr(b)[1]),
        lambda a, b: np.abs(np.linalg.qr(b)[1]),
    ),
}


@pytest.mark.parametrize(
    ("chosen", "precision"), [(None, "HIGHEST"), ("tensorfloat32", "HIGH"), ("default", "DEFAULT")]
)
def test_products_are_full_float32_unless_chosen(chosen, precision):
    code = (
        "import jax, jax.numpy as jnp\n"  # JAX first, as many programs have it
        "jax.devices()\n"
        "import metaprior; metaprior.Spec\n"
        "print(jax.jit(jnp.dot).lower(jnp.ones((3, 3)), jnp.ones((3, 3))).as_text())\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "JAX_DEFAULT_MATMUL_PRECISION"}
    environment |= {"JAX_DEFAULT_MATMUL_PRECISION": chosen} if chosen else {}
    text = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert f"precision = [{precision}, {precision}]" in text


def test_every_primitive_is_asked():
    assert set(ASKED) == set(metaprior.system.compiled.PRIMITIVES)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_values_are_those_of_single_matrices(name, batch):
    ours, numpys = ASKED[name]
    one = (lambda a, b: ours(a)) if name == "cholesky" else ours
    for _ in batch:
        one = jax.vmap(one)
    a, b = (m[(0,) * (2 - len(batch))] if batch != (0,) else m[0, :0] for m in (SYMMETRIC, RIGHT))
    found = np.asarray(jax.jit(one)(a, b))
    pairs = list(zip(a.reshape(-1, 4, 4), b.reshape(-1, 4, 5)))
    assert found.shape[: len(batch)] == batch
    wanted = np.array([numpys(*pair) for pair in pairs]).reshape(found.shape)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


def test_matrices_without_rows_have_factors_without_rows():
    """As of a posterior that has seen nothing."""

    def solve(a, b):
        return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(a), b, lower=True)

    assert jax.jit(jax.vmap(solve))(jnp.zeros((3, 0, 0)), jnp.zeros((3, 0, 2))).shape == (3, 0, 2)


def _log_density(a, b):
    factor = jnp.linalg.cholesky(a)
    z = jax.scipy.linalg.solve_triangular(factor, b, lower=True)
    return -(z**2).sum() / 2 - jnp.log(jnp.diagonal(factor)).sum()


def test_derivatives_of_a_batch_are_those_of_single_matrices():
    gradient = jax.jit(jax.vmap(jax.vmap(jax.grad(_log_density, argnums=(0, 1)))))(SYMMETRIC, RIGHT)
    for i in np.ndindex(2, 3):
        inverse = np.linalg.inv(SYMMETRIC[i])
        solved = inverse @ RIGHT[i]
        np.testing.assert_allclose(gradient[1][i], -solved, rtol=1e-3, atol=1e-4)
        by_a = (solved @ solved.T - inverse) / 2
        both = (gradient[0][i] + gradient[0][i].T) / 2
        np.testing.assert_allclose(both, by_a, rtol=1e-3, atol=1e-4)


def test_a_matrix_without_a_factor_spoils_no_other():
    a = SYMMETRIC[0].copy()
    a[1] = -np.eye(4)
    found = np.asarray(jax.jit(jnp.linalg.cholesky)(a))
    assert np.isnan(found[1]).any() and np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("batch", [(), (7,), (2, 7)])
def test_lapack_sees_single_matrices(batch):
    a = jax.ShapeDtypeStruct((*batch, 6, 6), jnp.float32)
    text = (
        jax.jit(lambda a: jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(a), a))
        .lower(a)
        .as_text()
    )
    calls = [line for line in text.splitlines() if "@lapack_" in line]
    assert len(calls) == 2
    assert all(
        "tensor<6x6xf32>" in line and not re.search(r"tensor<\d+x6x6x", line) for line in calls
    )


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_many_factorisations_at_once_end(threads):
    """As JAX lowers it itself, this program waits for ever with two or three threads."""
    code = """
import jax, jax.numpy as jnp, metaprior.infer
def value(a):
    factors = [jnp.linalg.cholesky(a + 50 * (i + 1) * jnp.eye(40)) for i in range(12)]
    return sum(jax.scipy.linalg.solve_triangular(f, a, lower=True).sum() for f in factors)
a = jax.random.normal(jax.random.key(0), (32, 40, 40))
a = a @ a.swapaxes(1, 2)
gradient = jax.jit(jax.grad(value))
for _ in range(50):
    out = gradient(a).block_until_ready()
print(bool(jnp.isfinite(out).all()))
"""
    environment = os.environ | {"PJRT_NPROC": threads}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.stdout.strip() == "True", run.stderr


def test_another_jax_gets_one_thread(monkeypatch):
    """Where JAX keeps its rules elsewhere, there is nobody to wait for."""
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    monkeypatch.setattr(metaprior.system.compiled.mlir, "_platform_specific_lowerings", {})
    metaprior.system.compiled._one_matrix_after_another()
    assert os.environ.pop("PJRT_NPROC") == "1"


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
    options = metaprior.system.compiled.effort()
    assert bool(options) == chosen
    monkeypatch.undo()
    assert (
        jax.jit(jnp.sin, **options)(0.0) == 0.0
    )  # XLA does not take an option that it does not know


def test_jit_compiles_once_with_the_effort_of_the_first_call(monkeypatch):
    asked, traced = [], []
    monkeypatch.setattr(metaprior.system.compiled, "effort", lambda: asked.append(1) or {})

    def double(x, name):
        traced.append(name)
        return 2 * x

    call = metaprior.system.compiled.jit(double)
    assert not asked and call.__name__ == "double"
    assert [float(call(jnp.float32(x), "a")) for x in (1, 2)] == [2, 4] and traced == ["a"]
    assert float(call(jnp.float32(1), "b")) == 2 and traced == ["a", "b"] and len(asked) == 1


OVER_ROWS = "bnr,bnd->brd"


def lowered(equation, *shapes) -> str:
    """The program of a product of arrays of these shapes; its values are numpy's."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    call = jax.jit(lambda *arrays: jnp.einsum(equation, *arrays))
    np.testing.assert_allclose(call(*arrays), np.einsum(equation, *arrays), rtol=1e-5, atol=1e-5)
    return call.lower(*arrays).as_text()


@pytest.mark.parametrize(
    ("equation", "a", "b", "turned"),
    [
        (OVER_ROWS, (3, 5, 8), (3, 5, 9), 1),
        (OVER_ROWS, (3, 5, 8), (3, 5, 7), 0),  # few columns
        (OVER_ROWS, (3, 101, 8), (3, 101, 8), 0),  # many rows
        ("abnr,abnd->abrd", (2, 3, 5, 8), (2, 3, 5, 9), 1),
        ("nr,nd->rd", (5, 8), (5, 9), 0),  # what tasks share is one product
        ("bnd,brd->bnr", (3, 5, 8), (3, 9, 8), 0),
        ("bnr,brd->bnd", (3, 5, 8), (3, 8, 9), 0),
        ("bnr,bnd->br", (3, 5, 8), (3, 5, 8), 0),
    ],
)
def test_sums_of_outer_products_are_products_of_rows(equation, a, b, turned):
    """One array is turned; it and the result have a factor (`metaprior.system.compiled._untiled`)."""
    assert lowered(equation, a, b).count("optimization_barrier") == 3 * turned


@pytest.mark.parametrize(
    "equation, a, b, axes",
    [
        ("tnr,tnd->rd", (3, 5, 8), (3, 5, 9), 1),
        ("tnr,tn->r", (3, 5, 8), (3, 5), 1),
        ("tnrs,tnd->rsd", (3, 5, 2, 4), (3, 5, 1), 1),
        ("ptnr,tpnd->prd", (2, 3, 5, 1), (3, 2, 5, 9), 1),  # particles
        ("ptnr,tpnd->prd", (2, 3, 5, 8), (3, 2, 5, 9), 1),  # and turned
        ("tpd,tqd->pq", (3, 5, 40), (3, 4, 40), 1),  # a kernel that tasks share
        ("tnr,ntd->rd", (3, 5, 8), (5, 3, 9), 1),
        ("tnr,tnd->rd", (3, 0, 8), (3, 0, 9), 1),
        ("tnr,tnd->rd", (3, 5, 256), (3, 5, 256), 2),
    ],
)
def test_sums_over_tasks_and_rows_have_one_axis(equation, a, b, axes):
    (over,) = re.findall(r"contracting_dims = \[([^]]*)\]", lowered(equation, a, b))
    assert len(over.split(",")) == axes


@pytest.mark.parametrize(
    "equation, kernel, batches",
    [
        ("qp,tpd->tqd", (4, 5), 1),
        ("qp,tpd->qtd", (4, 5), 1),
        ("pq,stpd->stqd", (5, 4), 2),
        ("qp,tpd->tqd", (90, 5), 0),  # larger than what it is for
    ],
)
def test_a_kernel_that_tasks_share_is_one_for_each(equation, kernel, batches):
    particles = (2, 3, 5, 80) if "s" in equation else (3, 5, 80)
    every = re.findall(r"batching_dims = \[([^]]*)\] x", lowered(equation, kernel, particles))
    assert (len(every[0].split(",")) if every else 0) == batches


def test_gradients_of_every_tasks_weights_are_products_of_rows(x64):
    """To the second order, as MAML takes them; and in double precision, which is left alone, to all
    digits.
    """
    rng = np.random.default_rng(0)
    w, x, y = (
        rng.normal(size=shape).astype(np.float32) for shape in ((8, 9), (3, 5, 9), (3, 5, 8))
    )

    def after_a_step(w, x, y):
        def loss(w):
            return ((jnp.tanh(x @ w.T) - y) ** 2).mean()

        return loss(w - 0.1 * jax.grad(loss)(w))

    call = jax.jit(jax.grad(lambda w, x, y: jax.vmap(after_a_step, (None, 0, 0))(w, x, y).mean()))
    assert call.lower(w, x, y).as_text().count("optimization_barrier") >= 2
    double = tuple(a.astype(np.float64) for a in (w, x, y))
    assert "optimization_barrier" not in call.lower(*double).as_text()
    np.testing.assert_allclose(call(w, x, y), call(*double), rtol=1e-4, atol=1e-6)


def test_another_jax_keeps_its_products(monkeypatch):
    monkeypatch.delattr(metaprior.system.compiled.mlir, "_platform_specific_lowerings")
    metaprior.system.compiled._products()


def test_tasks_are_drawn_apart_but_for_what_no_key_changes():
    source, keys = metaprior.sources.Sinusoid(), jr.split(jr.key(0), 3)
    for drawn, expected in zip(
        *(jax.tree.leaves(f(source, keys)) for f in (_draw, lambda s, k: jax.vmap(s)(k))),
        strict=True,
    ):
        np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-6)

    def text(part):
        return (
            jax.jit(lambda keys: getattr(_draw(source, keys).support, part))
            .lower(keys)
            .compile()
            .as_text()
        )

    assert 'inlineable="false"' in text("y") and "call(" not in text("mask")


def test_random_bits_take_no_loop():
    text = jax.jit(lambda key: jr.bits(key, (100,))).lower(jr.key(0)).compile().as_text()
    assert " while(" not in text and text.count(" call(") == 1


@pytest.mark.parametrize("size", [10, 10_000])
def test_bits_are_threefry(size):
    """As Random123 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) has
    them, 20 rounds.
    """
    key = np.array([0x13198A2E, 0x03707344], np.uint32)
    low = np.arange(size, dtype=np.uint32)
    x, keys = (
        [np.zeros_like(low) + key[0], low + key[1]],
        [key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)],
    )
    for four in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[four % 2]:
            x[0] = x[0] + x[1]
            x[1] = ((x[1] << np.uint32(turn)) | (x[1] >> np.uint32(32 - turn))) ^ x[0]
        x = [x[0] + keys[(four + 1) % 3], x[1] + keys[(four + 2) % 3] + np.uint32(four + 1)]
    found = jax.jit(lambda key: jr.bits(key, (size,)))(jr.wrap_key_data(jnp.asarray(key)))
    np.testing.assert_array_equal(np.asarray(found), x[0] ^ x[1])


def test_another_jax_keeps_its_loop(monkeypatch):
    monkeypatch.setattr(metaprior.system.compiled.mlir, "_lowerings", {})
    metaprior.system.compiled._random_bits_apart()


def _residual(net, x):
    """A residual row normalised, twice: what is elementwise is read by two products."""
    for weight in net:
        x = x + jnp.tanh(NORM(x) @ weight)
    return (x * x).sum()


def _norm(x):
    return (x - x.mean()) * jax.lax.rsqrt(x.var() + 1e-3)


NORM = metaprior.system.compiled.apart(_norm)
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


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_what_is_apart_has_the_same_values_and_derivatives(name, compiled, monkeypatch, x64):
    net = list(jr.normal(jr.key(0), (2, 4, 4)))
    rows = jr.normal(jr.key(1), (3, 4))

    def found():
        many = jax.vmap(DERIVATIVES[name](_residual), (None, 0))
        return (jax.jit(many) if compiled else many)(net, rows)

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
    text = (
        jax.jit(metaprior.system.compiled.apart(lambda x: inside(x) + 1))
        .lower(jnp.ones(3))
        .compile()
        .as_text()
    )
    assert text.count(" call(") == 1

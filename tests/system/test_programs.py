"""Programs kept between processes: the same answers, one trace, and a new one when anything it
depends on changes.
"""

import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaprior import Spec
from metaprior.heads import Gaussian
from metaprior.methods import CNP, MAML
from metaprior.system import programs
from metaprior.task import Data, pad


@pytest.fixture
def folder(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def traced():
    """A function as a process finds it at its start, and the list of its traces."""
    traces = []

    def means(learner, support, x, factor, key):
        traces.append(factor)
        mixture = learner.posterior(support, key=key).predict(x, key=key, samples=4)
        return {"mean": factor * mixture.mean(), "pair": (mixture.variance(), key)}

    return programs.kept(means), traces


def arguments(key, factor=2.0, rows=3):
    learner = CNP.init(Spec(1, Gaussian(1)), key=key, width=4)
    return (
        learner,
        pad(Data.of([[0.0], [1.0]], [0.5, 1.0]), rows),
        np.zeros((2, 1), np.float32),
        factor,
        key,
    )


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("traced-*"))


def test_a_later_process_does_not_trace(folder, key):
    first, traces = traced()
    a, again = first(*arguments(key)), first(*arguments(key))
    assert len(traces) == 1 and len(entries(folder)) == 1
    later, traces = traced()
    b = later(*arguments(key))
    assert not traces
    learner, support, x, factor, _ = arguments(key)
    plain = factor * learner.posterior(support, key=key).predict(x, key=key, samples=4).mean()
    for found in (a, again, b):
        np.testing.assert_array_equal(found["mean"], a["mean"])
        np.testing.assert_allclose(found["mean"], plain, rtol=1e-5)
        assert jnp.issubdtype(found["pair"][1].dtype, jax.dtypes.prng_key)


def test_other_parameters_are_other_numbers_of_the_same_program(folder, key):
    function, traces = traced()
    a = function(*arguments(key))["mean"]
    b = function(*arguments(jax.random.key(7)))["mean"]
    assert len(traces) == 1 and not np.allclose(a, b)


@pytest.mark.parametrize("change", ["number", "shape", "structure", "sources"])
def test_what_the_trace_depends_on_is_traced_anew(folder, key, monkeypatch, change):
    function, traces = traced()
    plain = function(*arguments(key))["mean"]
    changed = arguments(key, 3.0 if change == "number" else 2.0, 4 if change == "shape" else 3)
    if change == "structure":
        changed = (CNP.init(Spec(1, Gaussian(1)), key=key, width=5), *changed[1:])
    if change == "sources":
        monkeypatch.setattr(programs, "_versions", lambda: "another version")
    found = function(*changed)["mean"]
    assert len(traces) == len(entries(folder)) == 2
    if change != "structure":
        np.testing.assert_allclose(found, (1.5 if change == "number" else 1.0) * plain, rtol=1e-5)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])]
)
def test_a_damaged_entry_is_traced_anew(folder, key, damage):
    plain = traced()[0](*arguments(key))["mean"]
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    function, traces = traced()
    np.testing.assert_array_equal(function(*arguments(key))["mean"], plain)
    assert len(traces) == 1 and entry.read_bytes()[32:] != damage(whole)[32:]


class Foreign(eqx.Module):
    """A learner whose code is not this package's."""

    inner: CNP

    def posterior(self, support, *, key):
        return self.inner.posterior(support, key=key)


@pytest.mark.parametrize("why", ["foreign", "callback", "no folder", "read only"])
def test_what_cannot_be_kept_is_compiled_as_ever(folder, key, monkeypatch, why):
    given = arguments(key)
    function, traces = traced()
    if why == "foreign":
        given = (Foreign(given[0]), *given[1:])
    if why == "no folder":
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("METAPRIOR_CACHE", "")
    if why == "read only":
        monkeypatch.setattr(
            Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("read only"))
        )
    if why == "callback":
        inner = function.__wrapped__

        def noisy(*arguments):
            jax.debug.callback(lambda: None)
            return inner(*arguments)

        function = programs.kept(noisy)
    a, b = (function(*given)["mean"] for _ in range(2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, traced()[0](*arguments(key))["mean"])
    assert len(traces) <= 2 and len(entries(folder)) == (
        0 if why in ("no folder", "read only") else 1
    )


CHOSE_NONE = """
import jax
from metaprior.system import programs
from metaprior.tables import members
programs._OPTIONS["jax_persistent_cache_min_compile_time_secs"] = 0.0
before = [jax.config.values[name] for name in programs._OPTIONS]
jax.jit(lambda x: x + 1)(1.0)  # JAX looks at its options when it first compiles
members._keys(jax.random.key(0), 3)
assert [jax.config.values[name] for name in programs._OPTIONS] == before
jax.jit(lambda x: x + 2)(1.0)
"""


def test_a_process_that_chose_no_cache_has_one_too(tmp_path):
    """Its own programs are kept, those of others are not, and JAX's options are as they were."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    given["METAPRIOR_CACHE"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", CHOSE_NONE], env=given, check=True)
    kept = {path.name.rsplit("-", 2)[0] for path in tmp_path.iterdir()}
    assert {name.split("-")[0] for name in kept} == {"jit_call", "traced"}


def made(make, spec, key):
    return {"learner": make(spec, key=key, width=4), "spec": spec, "keys": jax.random.split(key)}


def test_modules_come_back_whole(folder, key):
    given = (CNP.init, Spec(1, Gaussian(1)), key)
    first, later = programs.kept(made), programs.kept(made)
    a, b, plain = first(*given), later(*given), made(*given)
    assert len(entries(folder)) == 1
    for found in (a, b):
        assert jax.tree.structure(found) == jax.tree.structure(plain)
        assert found["spec"] == plain["spec"]
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
            if eqx.is_array(one):
                assert one.dtype == other.dtype and one.shape == other.shape
    other = programs.kept(made)(MAML.init, *given[1:])
    assert len(entries(folder)) == 2 and isinstance(other["learner"], MAML)


def test_what_comes_out_goes_in_without_another_compile(folder, caplog):
    """What a kept program gives is on a device for good, where a user's arrays are not."""
    step = programs.kept(lambda state, x: state + x)
    with jax.log_compiles():
        state = step(jnp.zeros(3), np.ones(3, np.float32))
        state = step(state, np.ones(3, np.float32))
    np.testing.assert_array_equal(state, 2.0)
    done = [record.getMessage() for record in caplog.records]
    assert sum(text.startswith("Finished XLA compilation of jit(call)") for text in done) == 1


def test_an_error_of_the_function_is_raised(folder, key):
    def wrong(x):
        raise ValueError("of the function")

    with pytest.raises(ValueError, match="of the function"):
        programs.kept(wrong)(jnp.zeros(3))

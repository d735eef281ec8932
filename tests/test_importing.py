"""Importing the package, and using it, leaves the rest of the process as it was."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import metaprior

LEFT_ALONE = """
import os
import jax, jax.numpy as jnp, numpy as np
import polars  # sets a variable of its own for its allocator

def programs():
    a, b = jnp.eye(4), jnp.ones((4, 2))
    image, kernel = jnp.ones((1, 1, 8, 8)), jnp.ones((2, 1, 3, 3))
    key = jax.random.key(0)
    used = {
        "cholesky": (lambda a: jnp.linalg.cholesky(a).sum(), a),
        "solve": (lambda a: jax.scipy.linalg.solve_triangular(a, b, lower=True).sum(), a),
        "eigh": (lambda a: jnp.linalg.eigh(a)[0].sum(), a),
        "einsum": (lambda a: jnp.einsum("nij,njk->nik", a[None], b[None]).sum(), a),
        "outer": (lambda a: jnp.einsum("nr,nd->rd", a, b).sum(), a),
        "normal": (lambda a: (a * jax.random.normal(key, a.shape)).sum(), a),
        "convolution": (lambda x: jax.lax.conv(x, kernel, (1, 1), "SAME").sum(), image),
    }
    found = {}
    for name, (f, x) in used.items():
        many = jnp.stack([x] * 3)
        forms = {"": (f, x), "vmap ": (jax.vmap(f), many), "grad ": (jax.grad(f), x),
                 "vmap grad ": (jax.vmap(jax.grad(f)), many)}
        for form, (g, arguments) in forms.items():
            found[form + name] = jax.jit(g).lower(arguments).as_text()
    return found

def state():
    jax.clear_caches()
    return programs(), dict(jax.config.values), dict(os.environ)

before = state()
import metaprior
for name in metaprior.__all__:
    getattr(metaprior, name)
from metaprior.heads import Gaussian
maml = metaprior.methods.MAML.init(metaprior.Spec(1, Gaussian(1)), key=jax.random.key(0))
metaprior.fit(maml, metaprior.sources.Sinusoid(), key=jax.random.key(1), steps=2, batch=3)

x = np.arange(40.0)
table = {"g": np.repeat(np.arange(8), 5), "x": x, "y": np.sin(x)}
prior = metaprior.Prior("alpaca", steps=2).fit(table, task="g", target="y")
posterior = prior.adapt({name: column[:3] for name, column in table.items()})
posterior.predict({"x": x[:4]}), posterior.suggest({"x": x[:4]})

after = state()
for name, text in before[0].items():
    assert after[0][name] == text, name
assert after[1] == before[1], [k for k in after[1] if after[1][k] != before[1].get(k)]
assert after[2] == before[2], set(after[2].items()) ^ set(before[2].items())
"""


def test_programs_options_and_environment_of_others_stay_as_they_are():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", LEFT_ALONE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


HANG = """
import jax, jax.numpy as jnp
from metaprior.infer.cholesky import factorise
x = jax.random.normal(jax.random.key(0), (300, 80, 80))
def two(a):
    k = a @ a.T + jnp.eye(80)
    return factorise(k).log_det(), factorise(k + jnp.eye(80)).log_det()
found = jax.jit(lambda x: jax.lax.map(two, x, batch_size=100))(x)
assert all(jnp.isfinite(f).all() for f in found)
"""


def test_large_factors_do_not_wait_for_each_other():
    """Takes a second; batched calls of LAPACK instead never end with two threads."""
    environment = os.environ | {"PJRT_NPROC": "2"}
    done = subprocess.run([sys.executable, "-c", HANG], env=environment, timeout=200, check=False)
    assert done.returncode == 0


CLASSES = """
import numpy as np
import metaprior
rng = np.random.default_rng(0)
for groups, rows in ((10, 8), (14, 11)):
    x = rng.normal(size=groups * rows)
    table = {"g": np.repeat(np.arange(groups), rows), "x": x,
             "y": np.array(["low", "middle", "high"])[np.clip(x + 1.5, 0, 2.9).astype(int)]}
    prior = metaprior.Prior("process", steps=2).fit(table, task="g", target="y")
    posterior = prior.adapt({name: column[:3] for name, column in table.items()})
    posterior.predict({"x": x[:4]}), posterior.suggest({"x": x[:4]})
"""


@pytest.mark.slow
def test_several_tables_of_three_classes_do_not_wait_for_each_other():
    """With JAX's own batches of LAPACK calls, several in one program, they waited for ever."""
    environment = os.environ | {"PJRT_NPROC": "2"}  # fewer threads than factorisations
    done = subprocess.run(
        [sys.executable, "-c", CLASSES], env=environment, timeout=600, check=False
    )
    assert done.returncode == 0


FORBIDDEN = ("jax._src", "equinox.internal", "jax.core")
# Where JAX's documentation defines a primitive; for one of our own, in one file.
RULES = ("jax.interpreters", "products.py")
DOCUMENTED = {"os._exit"}  # underscored, but in the public documentation


def private_names(source: str, file: str = "") -> list[str]:
    """What a module takes from other packages that is not theirs to give."""
    forbidden = FORBIDDEN if file == RULES[1] else (*FORBIDDEN, RULES[0])
    tree = ast.parse(source)
    found, modules = [], {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                modules[name.asname or name.name.split(".")[0]] = name.name
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for name in node.names:
                modules[name.asname or name.name] = f"{node.module}.{name.name}"
    for path in modules.values():
        others = not path.startswith("metaprior")
        if others and (path.startswith(forbidden) or any(p[:1] == "_" for p in path.split("."))):
            found.append(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            base = modules.get(node.value.id, "metaprior")
            hidden = node.attr.startswith("_") and not node.attr.startswith("__")
            if hidden and not base.startswith("metaprior"):
                found.append(f"{base}.{node.attr}")
    return [name for name in found if name not in DOCUMENTED and name != "__future__"]


FILES = sorted(Path(metaprior.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    "source",
    [
        "from jax._src import core",
        "import equinox.internal as eqxi",
        "from jax.interpreters import mlir",
        "import numpy as np\nnp._core",
    ],
)
def test_private_names_are_seen(source):
    assert private_names(source)


def test_no_private_name_of_another_package():
    found = {str(file): private_names(file.read_text("utf-8"), file.name) for file in FILES}
    assert not {file: names for file, names in found.items() if names}

"""The public names are what they say, in whatever order things are imported."""

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

import metaprior

ORDERS = [
    "metaprior.tables.prior",
    "metaprior.evaluation.evaluate",
    "metaprior.training",
    "metaprior.testing",
]


@pytest.mark.parametrize("name", metaprior.__all__)
def test_public_name_exists(name):
    assert isinstance(getattr(metaprior, name), types.ModuleType) == (name in metaprior._MODULES)


def test_type_checkers_and_the_running_program_see_the_same_names():
    """`metaprior/__init__.py` says where names are twice: once for either."""
    tree = ast.parse(Path(metaprior.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    read = {name.name: f"{line.module}.{name.name}" for line in block.body for name in line.names}
    homes = {name: f"metaprior.{module}.{name}" for name, module in metaprior._HOME.items()}
    run = homes | {name: f"metaprior.{module}" for name, module in metaprior._MODULES.items()}
    assert read == run
    assert {*read, "__version__"} == set(metaprior.__all__) == set(dir(metaprior))
    assert len(metaprior.__all__) == len(set(metaprior.__all__))


def test_importing_the_package_is_quick_and_leaves_jax_alone():
    code = """
import sys, time
begin = time.process_time()
import metaprior
assert time.process_time() - begin < 0.1
assert not {"jax", "numpy", "polars"} & set(sys.modules)
assert callable(metaprior.fit) and callable(metaprior.evaluate)
try:
    metaprior.prior
except AttributeError as error:
    assert str(error) == "module 'metaprior' has no attribute 'prior'"
else:
    raise AssertionError
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("first", ORDERS)
def test_functions_are_not_hidden_by_their_modules(first):
    code = f"import {first}, metaprior; metaprior.fit.__call__, metaprior.evaluate.__call__"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_module_is_the_command():
    said = subprocess.run(
        [sys.executable, "-m", "metaprior", "--version"], capture_output=True, text=True, check=True
    )
    assert metaprior.__version__ in said.stdout


def test_a_quoted_header_names_its_column(tmp_path):
    (tmp_path / "t.csv").write_text('"Group name, ""id""",y\na,1\nb,2\n')
    assert metaprior.tables.read.read(tmp_path / "t.csv").columns == ['Group name, "id"', "y"]

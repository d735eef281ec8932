"""A file whose checksum is right may still hold anything: each field must be of the kind that its
class says.
"""

import copy
import json
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import metaprior
from metaprior.bends import Shares
from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.posterior import AbstractHead
from metaprior.system import files
from metaprior.system.annotations import fits

FIT = [
    (Shares(1.0, 0.0), Shares | None),
    (1, int),
    (1, float),
    (True, bool),
    (np.ones(3), float),
    (jnp.ones(3), int),
    (None, float),
    ("a", str),
    (None, str | None),
    (jnp.ones(2), Float[Array, "n"]),
    (np.ones(2), np.ndarray),
    (0.5, Float[Array, ""] | float),
    ("x", Literal["x", 1]),
    ((1, "a"), tuple[int, str]),
    ((1, 2, 3), tuple[int, ...]),
    ((), tuple[int, ...]),
    ([1], list[int]),
    ({"a": 1}, dict[str, int]),
    (jax.nn.relu, Callable),
    (jax.nn.relu, Callable[[int], int]),
    (Gaussian(1), AbstractHead),
    (object(), "anything"),
]
ODD = [
    ((1.0, 0.0), Shares | None),
    (Shares(1.0, "x"), Shares | None),
    ("1", int),
    (0.5, int),
    (1, bool),
    (1, str),
    (None, str),
    ([1], float),
    ("x", Float[Array, "n"]),
    (1, Literal["x", True]),
    ((1, 2), tuple[int, str]),
    ((1,), tuple[int, str]),
    ([1, 2], tuple[int, ...]),
    ((1, "a"), tuple[int, ...]),
    ((1,), list[int]),
    (["a"], list[int]),
    ({1: 1}, dict[str, int]),
    (1, Callable),
    ("tanh", Callable[[int], int]),
    ("x", AbstractHead),
    (None, AbstractHead),
    (1, str | list[str] | None),
]


@pytest.mark.parametrize("value, hint", FIT, ids=range(len(FIT)))
def test_fits(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize("value, hint", ODD, ids=range(len(ODD)))
def test_does_not_fit(value, hint):
    assert not fits(value, hint)


def modules(node, path=()):
    """Every module of a header and its place."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from modules(value, (*path, key))
        if "class" in node:
            yield path, node
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from modules(value, (*path, i))


def test_no_field_of_a_prior_may_hold_something_else(fitted, tmp_path):
    """One field of each class after another holds a list of text, and each fact about the fit a
    number.
    """
    data, size = files._checked(fitted / "run" / "prior")
    header, blob = json.loads(data[files._START :][:size]), data[files._START + size :]
    seen = set()
    for path, module in modules(header):
        for field in module["fields"]:
            if (module["class"], field) in seen or field in ("notes", "baselines"):
                continue
            seen.add((module["class"], field))
            changed = copy.deepcopy(header)
            place = changed
            for key in path:
                place = place[key]
            place["fields"][field] = {"list": ["odd"]}
            files._write(tmp_path / "prior", json.dumps(changed).encode(), [blob])
            with pytest.raises(InputError):
                metaprior.load(tmp_path / "prior")
    assert len(seen) > 40
    for i in range(len(header["fields"]["info"]["dict"])):
        changed = copy.deepcopy(header)
        changed["fields"]["info"]["dict"][i][1] = {"float": "nan"}
        files._write(tmp_path / "prior", json.dumps(changed).encode(), [blob])
        with pytest.raises(
            InputError, match=r"does not say (what was learned|how its columns are read)"
        ):
            metaprior.load(tmp_path / "prior")


def test_a_parted_module_comes_back(tmp_path, key):
    """Half of a module holds nothing where the other half holds arrays."""
    for half in eqx.partition(eqx.nn.MLP(1, 1, 4, 1, key=key), eqx.is_array):
        files.save(tmp_path / "half", half)
        assert eqx.tree_equal(files.load(tmp_path / "half"), half)

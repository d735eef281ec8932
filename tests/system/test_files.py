"""Saved files: what is written comes back the same, and anything else is refused without harm."""

import functools
import json
import operator
import os
import subprocess
import sys
import tracemalloc
import types
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import metaprior
from metaprior import methods
from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.system import files, names, trees

SETTINGS = dict(
    derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


class Leaf(eqx.Module):
    """A user's module; nothing of it may run when a file is read."""

    value: object
    twice: object = 2

    def __check_init__(self):
        calls.append("check")

    def __hash__(self):
        return calls.append("hash") or 0


Pair = NamedTuple("Pair", [("a", object), ("b", object)])  # noqa: UP014


class Loud(Pair):
    def __new__(cls, *items):
        return calls.append("new") or super().__new__(cls, *items)


class Sized(eqx.Module):
    size: int


class Fixed(Sized):
    size = property(lambda self: 3)  # in the place of the field

    def __init__(self):
        pass


class Abstract(eqx.Module):
    size: eqx.AbstractVar[int]


calls: list[str] = []
HERE = __name__


def same(a, b) -> bool:
    """The same types and the same bits, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, eqx.Module):
        return same(sorted(vars(a)), sorted(vars(b))) and all(
            same(x, vars(b)[name]) for name, x in vars(a).items()
        )
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items()))
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, (np.ndarray, np.generic, jax.Array)):
        return (a.dtype, a.shape, np.asarray(a).tobytes()) == (
            b.dtype,
            b.shape,
            np.asarray(b).tobytes(),
        )
    return a is b or repr(a) == repr(b)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            files.os, "fsync", lambda _: None
        )  # thousands of files, which need not outlive a power cut
        yield tmp_path_factory.mktemp("files") / "tree"


def sign(path, header, blob=b""):
    """Write a header, with a checksum that is right."""
    files._write(path, header if isinstance(header, bytes) else json.dumps(header).encode(), [blob])


def header_of(path):
    data, size = files._checked(path)
    return json.loads(data[files._START :][:size]), data[files._START + size :]


SMALL = {
    "a": jnp.arange(3.0),
    "b": (np.ones((2, 1), np.uint8), None, -0.0),
    "c": [Pair(1, Leaf("x"))],
    4: jax.nn.relu,
}


def test_cut_anywhere_and_any_flipped_bit(path):
    files.save(path, SMALL)
    data = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for bit in range(8 * len(data)):
            at, byte = bit // 8, data[bit // 8]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), at)
            with pytest.raises(InputError, match=r"damaged|cut short|another version|not a file"):
                files.load(path)
            os.pwrite(file.fileno(), bytes([byte]), at)
        for end in reversed(range(len(data))):
            file.truncate(end)
            with pytest.raises(InputError, match="cut short"):
                files.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(InputError, match="appended"):
        files.load(path)
    path.write_bytes(data)
    assert same(files.load(path), SMALL)


@pytest.mark.parametrize(
    "first", [b"metaprior 1\n", b"metaprior 3\n", b"metaprior 20\n", b"metaprior next\n"]
)
def test_another_version(path, first):
    path.write_bytes(first + bytes(100))
    with pytest.raises(InputError, match="another version"):
        files.load(path)


def deep(text, times=200000):
    return (text * times).encode()


def leaf(**fields):
    return {"class": f"{HERE}:Leaf", "fields": fields}


def array(shape, name="float32", kind="numpy", **more):
    return {"array": name, "shape": shape, "kind": kind, **more}


HOSTILE = {
    "list": [],
    "nothing": {},
    "text": b"",
    "no JSON": b"{",
    "twice": b'{"list": [], "list": []}',
    "UTF-16": '"é"'.encode("utf-16"),
    "UTF-8": '"é"'.encode(),
    "two": b"1 2",
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "1e999": b"1e999",
    "digits": deep("9", 100_000),
    "digits within": b'{"list": [' + deep("9", 5000) + b"]}",
    "65 bits": b"18446744073709551616",
    "deep lists": deep("["),
    "deep dicts": deep('{"list":['),
    "deep and whole": deep('{"list":[', 150) + deep("]}", 150),
    "deeper": deep('{"tuple":[', 400) + deep("]}", 400),
    "deep fields": deep('{"a":', 400) + b"1" + deep("}", 400),
    "huge shape": array([10**18]),
    "product": array([2**40, 2**40]),
    "no shape": array([0, 2**62, 2**62]),
    "zeros": array([0, 2**63]),
    "dimensions": array([1] * 5000),
    "negative": array([-1, -1]),
    "floats": array([0.0]),
    "truth": array([True]),
    "text shape": array("1"),
    "shape": array(1),
    "none": array(None),
    "type": array([0], "object"),
    "type list": array([0], ["f4"]),
    "kind": array([0], kind="x"),
    "kind list": array([0], kind=[]),
    "old kind": array([0], kind=True),
    "more": array([0], more=1),
    "scalar": array([0], kind="scalar"),
    "index": {"array": 0, "jax": True},
    "only": {"array": "float32"},
    "float": {"float": "1"},
    "float of nan": {"float": "NaN"},
    "float number": {"float": 1.0},
    "float list": {"float": ["nan"]},
    "dict": {"dict": {}},
    "dict of text": {"dict": ["ab"]},
    "triple": {"dict": [[1, 2, 3]]},
    "twice a key": {"dict": [[1, 2], [1, 3]]},
    "equal keys": {"dict": [[1, 2], [True, 3]]},
    "list key": {"dict": [[{"list": []}, 1]]},
    "array key": {"dict": [[array([0]), 1]]},
    "module key": {"dict": [[leaf(value=1), 1]]},
    "key in key": {"dict": [[{"tuple": [leaf(value=1)]}, 1]]},
    "tuple of text": {"tuple": "ab"},
    "tuple of none": {"tuple": None},
    "tuple of dict": {"tuple": {}},
    "both": {"tuple": [], "list": []},
    "missing": leaf(),
    "extra": leaf(value=1, other=2),
    "magic": leaf(value=1, __class__=2),
    "no fields": {"class": f"{HERE}:Leaf"},
    "fields list": {"class": f"{HERE}:Leaf", "fields": []},
    "fields text": {"class": f"{HERE}:Leaf", "fields": "value"},
    "order": {"fields": {"value": 1}, "class": f"{HERE}:Leaf"},
    "items": {"named": f"{HERE}:Pair", "items": [1]},
    "too many": {"named": f"{HERE}:Pair", "items": [1, 2, 3]},
    "items text": {"named": f"{HERE}:Pair", "items": "ab"},
}

CLASSES = [
    "os:system",
    "builtins:eval",
    "builtins:object",
    "builtins:tuple",
    "builtins:int",
    "builtins:type",
    "time:struct_time",
    "equinox:Module",
    "equinox.nn:MLP.__init__",
    "no_such_module_here:A",
    "os",
    "os:path:join",
    ":",
    "",
    ":A",
    "os:",
    "os:.",
    "jax:numpy",
    "metaprior:testing",
    "metaprior.cli:app",
    "metaprior.no_such:A",
    "metaprior.heads..x:A",
    "metaprior.:A",
    "jax.tools.jax_to_ir:A",
    f"{HERE}:SMALL",
    f"{HERE}:calls",
    f"{HERE}:Leaf.value",
    f"{HERE}:Leaf.__init__",
    f"{HERE}:Leaf.__class__",
    f"{HERE}:Abstract",
    f"{HERE}:Pair.__new__",
    "metaprior.method:AbstractMethod",
    "lazy_trap:A",
    "to_import:A",
    "optax:adam",
    "optax.no_such:A",
    None,
    1,
    [],
    {},
]

FUNCTIONS = [
    "os:system",
    "builtins:exec",
    "jax.numpy:save",
    "jax.numpy:load",
    "jax:jit",
    "jax.nn:initializers",
    "jax.nn:",
]


class Trap(types.ModuleType):
    """Does something when it is looked at, as lazy modules do."""

    def __getattribute__(self, name):
        calls.append(name)
        return super().__getattribute__(name)


def refused(path, header, blob=b"", match="refused"):
    """The file is refused, and nothing ran, was imported or took much memory."""
    sign(path, header, blob)
    before = set(sys.modules)
    calls.clear()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match):
            files.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000 + 40 * path.stat().st_size
    assert not calls and set(sys.modules) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header(path, name):
    refused(path, HOSTILE[name])


def test_hostile_arrays(path, monkeypatch):
    refused(path, array([2], "bool"), b"\1\2", match="truth")
    refused(path, array([2]), bytes(9), match="nothing uses")
    refused(path, {"list": [array([2]), array([1])]}, bytes(8), match="shape")
    refused(path, 1, bytes(1), match="nothing uses")
    monkeypatch.setattr(trees, "MOST", 3)
    refused(path, {"list": [array([0])] * 4}, match="more than 3 arrays")
    with pytest.raises(InputError, match="more than 3 arrays"):
        files.save(path, [np.zeros(0)] * 4)


@pytest.mark.parametrize("name", CLASSES, ids=repr)
def test_hostile_class(path, name, tmp_path, monkeypatch):
    for home in names.HOMES:
        __import__(home)
    (tmp_path / "to_import.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "lazy_trap", Trap("lazy_trap"))
    refused(path, {"named": name, "items": []})
    if name != "equinox:Module":  # found only by the name of the module that defines it
        refused(path, {"class": name, "fields": {}})


@pytest.mark.parametrize("name", [*FUNCTIONS, None, 1, []], ids=repr)
def test_hostile_function(path, name):
    refused(path, {"function": name})
    refused(path, leaf(value={"function": name}))


def test_nothing_of_a_class_runs(path):
    tree = [Leaf(1), Loud(1, 2), {("a", 1): Fixed()}]
    files.save(path, tree)
    calls.clear()
    found = files.load(path)
    assert not calls and same(found, tree) and found[2]["a", 1].size == 3
    sign(path, leaf(value=1))  # a field with a default may be left out
    assert files.load(path).twice == 2


LOCAL, LOOP = (
    type("Local", (Fixed,), {"__qualname__": "f.<locals>.Local", "__module__": HERE})(),
    [],
)
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "tree",
    [
        LOCAL,
        LOOP,
        lambda x: x,
        jnp.save,
        Leaf,
        2**64,
        1j,
        object(),
        {Leaf(1): 1},
        {1, 2},
        jr.key(0),
        np.array("a"),
        np.zeros(1, np.float16),
        np.ma.array([1.0, 2.0]),
        type("L", (list,), {})(),
    ],
    ids=lambda tree: type(tree).__name__,
)
def test_what_could_not_be_read_is_not_saved(path, tree):
    path.unlink(missing_ok=True)
    with pytest.raises(InputError, match="cannot be saved"):
        files.save(path, tree)
    assert not path.exists()


SINGLE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
)
KEYS = st.recursive(SINGLE, lambda inner: st.lists(inner, max_size=2).map(tuple), max_leaves=3)


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = np.dtype(draw(st.sampled_from(trees.TYPES)))
    flat = np.resize(
        np.frombuffer(draw(st.binary(max_size=8)) + bytes(8), np.uint8),
        dtype.itemsize * int(np.prod(shape)),
    )
    made = (flat % 2 if dtype.kind == "b" else flat).astype(np.uint8).view(dtype).reshape(shape)
    if not shape and draw(st.booleans()):
        return made[()]
    narrow = not dtype.name.endswith("64")  # JAX holds wider ones only where it is told to
    return jnp.asarray(made) if narrow and draw(st.booleans()) else made


def leaf_of(value, twice):
    """Not by a call, in which Equinox sorts the keys of dictionaries, which these need not bear."""
    made = object.__new__(Leaf)
    vars(made).update(value=value, twice=twice)
    return made


TREES = st.recursive(
    KEYS | st.floats() | arrays() | st.sampled_from(list(names.FUNCTIONS.values())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.builds(leaf_of, inner, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(lambda a: optax.ScaleByAdamState(a, a, [a]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=200, **SETTINGS)
@given(tree=TREES)
def test_every_tree_comes_back(path, tree):
    files.save(path, tree)
    data = path.read_bytes()
    found = files.load(path)
    assert same(found, tree)
    files.save(path, found)
    assert path.read_bytes() == data


@settings(max_examples=100, **SETTINGS)
@given(data=st.binary(max_size=200), at=st.integers(0, 80))
def test_arbitrary_bytes(path, data, at):
    path.write_bytes(data)
    with pytest.raises(InputError):
        files.load(path)
    files.save(path, SMALL)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    assume(path.read_bytes() != whole)
    with pytest.raises(InputError):
        files.load(path)


WORDS = st.sampled_from(
    [
        *"array shape kind class fields named items tuple list dict float function".split(),
        *"value twice a b jax numpy scalar nan uint8 bool".split(),
        *(name for name in CLASSES if isinstance(name, str)),
        *FUNCTIONS,
        "jax.nn:relu",
        f"{HERE}:Leaf",
        f"{HERE}:Pair",
        "optax:EmptyState",
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=10,
)


def places(node, here=()):
    yield here
    for key, value in (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    ):
        yield from places(value, here + (key,))


@settings(max_examples=400, **SETTINGS)
@given(choose=st.data())
def test_changed_headers_with_a_right_checksum(path, choose):
    """They are refused, or are the tree that the header describes."""
    files.save(path, SMALL)
    *whole, blob = header_of(path)
    for _ in range(choose.draw(st.integers(1, 2))):
        *way, last = (0, *choose.draw(st.sampled_from(list(places(whole[0])))))
        node = functools.reduce(operator.getitem, way, whole)
        how = choose.draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "replace" or node is whole:
            node[last] = choose.draw(JSON)
        elif how == "remove":
            del node[last]
        elif isinstance(node, dict):
            node[choose.draw(WORDS)] = choose.draw(JSON)
        else:
            node.insert(last, node[last])
    sign(path, whole[0], blob)
    try:
        found = files.load(path)
    except InputError:
        return
    files.save(path, found)
    assert header_of(path) == (whole[0], blob)


READ = """
import importlib, pkgutil, sys
import equinox as eqx
import metaprior
from metaprior.system import files
files.save(sys.argv[2], files.load(sys.argv[1]))
there = set(sys.modules)
for room in ("tables.baselines", "heads", "infer", "methods", "nets", "sources"):
    package = importlib.import_module(f"metaprior.{room}")
    for found in pkgutil.iter_modules(package.__path__, f"metaprior.{room}."):
        module = importlib.import_module(found.name)
        classes = [c for c in vars(module).values() if isinstance(c, type)]
        own = [c for c in classes if c.__module__ == found.name]
        assert found.name in there or not any(issubclass(c, eqx.Module) for c in own), found.name
"""


def test_a_training_state_is_read_by_a_fresh_process(path, tmp_path):
    spec = metaprior.Spec(1, Gaussian(1))
    method = methods.MAML.init(spec, key=jr.key(0), width=4)
    fitted = metaprior.fit(
        method, metaprior.sources.Sinusoid(), key=jr.key(1), steps=2, every=1, batch=2
    )
    files.save(path, fitted)
    assert same(files.load(path), fitted)
    subprocess.run([sys.executable, "-c", READ, path, tmp_path / "again"], check=True, timeout=120)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_saved_prior_is_written_again_the_same(fitted, tmp_path):
    metaprior.load(fitted / "run" / "prior").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (fitted / "run" / "prior").read_bytes()

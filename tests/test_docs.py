"""The examples in the README and the docs run; links and names in them exist."""

import doctest
import importlib
import re
import sys
import tomllib
import types
from collections.abc import Callable

import jax
import pytest
from conftest import ROOT

SHOWN = [p for p in sorted((ROOT / "metaprior").rglob("*.py")) if ">>> " in p.read_text("utf-8")]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)]+)\)")
HOME = "https://github.com/metaprior/metaprior/blob/main/"
RAW = "https://raw.githubusercontent.com/metaprior/metaprior/main/"


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def headings(page) -> set[str]:
    """The anchors of a page's headings, as repository hosts make them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.quick("README.md")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What a user's own file is: saved classes are found in it again.
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    names = module.__dict__
    for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.S):
        quick = code.replace("metaprior.Prior(", "metaprior.Prior(steps=4, ")
        exec(compile(quick, page.name, "exec"), names)
    if "Offset" in names:
        from metaprior import testing

        testing.check_method(names["Offset"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("https:", "http:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_the_page_of_the_wheel_has_whole_addresses():
    """A package index shows the README alone: its links and its picture must not be relative."""
    hook = project()["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = README.read_text("utf-8")
    for change in hook["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)

    links, before = LINK.findall(text), LINK.findall(README.read_text("utf-8"))
    assert len(links) == len(before) and f"]({RAW}docs/demo.svg)" in text
    for link in links:
        assert link.startswith("https://"), link
        if link.startswith((HOME, RAW)):
            path = link.removeprefix(HOME).removeprefix(RAW).partition("#")[0]
            assert (ROOT / path).exists(), link


def test_every_room_is_explained():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = [p for p in (ROOT / "metaprior").iterdir() if not p.name.startswith("_")]
    names = [f"`{p.name}/`" if p.is_dir() else f"`{p.name}`" for p in rooms if p.suffix != ".typed"]
    assert [name for name in names if name not in text] == []


def test_the_metadata_are_complete():
    found = project()["project"]
    assert found["authors"] == [{"name": "metaprior contributors"}]
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= set(found["urls"])
    assert found["keywords"] and found["classifiers"] and found["license-files"] == ["LICENSE"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert found["urls"]["Repository"] in citation and found["license"] in citation


def test_readme_has_the_two_commands():
    lines = README.read_text("utf-8").splitlines()
    assert "pip install . && metaprior demo" in lines
    assert [line for line in lines if line.startswith("pip install '.[test]' && ")] == [
        "pip install '.[test]' && python -m pytest -n 2"
    ]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_requirements_have_no_pins_for_users():
    assert not [need for need in project()["project"]["dependencies"] if "==" in need]


def run_example(test: doctest.DocTest, tell: Callable[[str], object] | None = None) -> bool:
    """Whether a docstring's example gives what it says; `tell` gets the complaints."""
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    return not runner.run(test, out=tell, clear_globs=False).failed


def run_shapes(test: doctest.DocTest) -> bool:
    """The same, where JAX only follows shapes and types; false where the example needs values.

    Nothing is compiled. By themselves most examples compile a hundred programs, one an operation.
    """
    names, right = dict(test.globs), []
    jax.eval_shape(lambda: right.append(run_example(test, lambda text: None)))
    test.globs = names
    return right[0]


# Their examples need values, and compile for seconds.
LONG = {"prior", "posterior", "several", "method", "nuts", "laplace"}


@pytest.mark.parametrize(
    "path,whole",
    [
        pytest.param(
            path, whole, id=f"{path.relative_to(ROOT).with_suffix('')}-{whole}", marks=marks
        )
        for path in SHOWN
        for whole in (False, True)
        for marks in ([pytest.mark.slow] if whole or path.stem in LONG else [],)
    ],
)
def test_docstring_examples_run(path, whole):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests
    for test in tests:
        # Quick are shapes, and values where shapes do not do; slow are the other values.
        if run_shapes(test) == whole:
            assert run_example(test), test.name

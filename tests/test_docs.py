"""The examples in the README and the docs run; links and names in them exist."""

import doctest
import importlib
import re
import sys
import tomllib
import types

import pytest
from conftest import ROOT

SHOWN = [p for p in sorted((ROOT / "metaprior").rglob("*.py")) if ">>> " in p.read_text("utf-8")]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(
        "example"
    )  # what a user's own file is: saved classes are found in it again
    monkeypatch.setitem(sys.modules, "example", module)
    names = module.__dict__
    for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.S):
        exec(
            compile(
                code.replace("metaprior.Prior(", "metaprior.Prior(steps=4, "), page.name, "exec"
            ),
            names,
        )
    if "Offset" in names:
        from metaprior import testing

        testing.check_method(names["Offset"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


def test_readme_has_the_two_commands():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert "pip install . && metaprior demo" in lines
    assert [line for line in lines if line.startswith("pip install '.[test]' && ")] == [
        "pip install '.[test]' && python -m pytest -n 2"
    ]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_requirements_have_no_pins_for_users():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [need for need in project["dependencies"] if "==" in need]


@pytest.mark.parametrize("path", SHOWN, ids=lambda p: p.stem)
def test_docstring_examples_run(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.attempted and not result.failed

"""The report is one self-contained file that says what it should."""

import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

import metaprior
from metaprior.report import figures, tables, write_report


@pytest.fixture(scope="module")
def page(fitted, tmp_path_factory):
    prior = metaprior.load(fitted / "run" / "prior")
    groups = {"the <first>": pl.read_csv(fitted / "table.csv").filter(pl.col("g") == "g0")}
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        prior=prior,
        evaluation=prior.evaluate(shots=(0, 2)),
        groups=groups,
        x="x",
        title="A <b>",
    )
    return path.read_text("utf-8")


def test_nothing_is_loaded_from_elsewhere(page):
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)([^"')\s>]+)""", page)
    assert not outside
    assert "<script" not in page and "@import" not in page


def test_it_is_well_formed_and_escaped(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert "A &lt;b&gt;" in page

    class Balance(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br", "path", "use"):
                self.open.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            if tag not in ("meta", "br", "path", "use"):
                assert self.open.pop() == tag

    Balance().feed(page)


def test_every_part_is_there(page, fitted):
    for text in (
        "Groups it had never seen",
        "How fast it learns",
        "can be believed",
        "Beside every baseline",
        "method",
    ):
        assert text in page
    assert page.count("<svg") == 3 + 2 + 1


def test_marks_follow_the_paired_interval():
    def entry(low, high):
        return {
            "difference": {
                "nll": {"low": low, "high": high},
                "accuracy": {"low": low, "high": high},
            }
        }

    assert tables.mark(entry(0.1, 0.2), "nll") == tables.BETTER
    assert tables.mark(entry(-0.2, -0.1), "nll") == tables.WORSE
    assert tables.mark(entry(-0.1, 0.1), "nll") == ""
    assert tables.mark(entry(0.1, 0.2), "accuracy") == tables.WORSE
    assert tables.mark({}, "nll") == ""


def test_reliability_of_calibrated_probabilities_is_the_diagonal():
    rng = np.random.default_rng(0)
    stated, came = figures.reliability_points({"pit": rng.uniform(size=20_000)})
    assert np.abs(stated - came).max() < 0.02
    p = rng.uniform(size=20_000)
    y = (rng.uniform(size=20_000) < p).astype(int)
    stated, came = figures.reliability_points({"p": np.stack([1 - p, p], axis=1), "y": y})
    assert np.abs(stated - came).max() < 0.03

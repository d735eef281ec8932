"""Damaged files are read or refused in one line; `python -m benchmarks.fuzz` tries many more."""

import pytest

from benchmarks import fuzz


def test_damaged_files():
    found = [fuzz.outcome(fuzz.fuzzed(seed), check=seed % 4 == 0) for seed in range(300)]
    assert {"read", "checked", "refused in reading", "refused in checking"} == set(found)


def test_a_failure_is_no_refusal(monkeypatch):
    def breaks(*_):
        raise fuzz.InputError("two\nlines")

    monkeypatch.setattr(fuzz, "rows_of", breaks)
    with pytest.raises(AssertionError, match="not one line"):
        fuzz.outcome(b"g,y\n1,2\n")

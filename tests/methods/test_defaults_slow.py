"""Defaults that train, on the tables of `benchmarks.defaults`.

One method of each kind is trained here: black box, optimisation, closed form.
The command `python -m benchmarks.defaults` trains all, and the page of methods shows what it found.
There are fewer tasks a step than `fit` has by default. Their gradients are noisier: a fragile
method goes astray sooner, in a fraction of the time. test_methods.py and test_oracles_slow.py train
on the synthetic sources.

Every loss has to be finite. No method may end worse than its untrained self by 2 standard errors on
any table. It has to be better by 2 on all tables but one: of seven, two have gains of a tenth of a
nat or less for most methods.
"""

import pytest

from benchmarks import defaults

BATCH = 4
CHOSEN = ("cnp", "maml", "process")
CASES = [case for case in defaults.CASES if case[0] in CHOSEN]


@pytest.fixture(scope="session", params=list(defaults.KINDS))
def joined(request, data):
    return request.param, defaults.members(
        request.param, data, 192, without=defaults.SYNTHETIC, splits={"contraception": 3}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name,joined", CASES, indirect=["joined"])
def test_defaults_train(name, joined):
    kind, tables = joined
    found = defaults.measure(name, tables, BATCH, 32)["tables"]
    print(name, kind, found)
    assert all(entry["finite"] for entry in found.values())
    assert all(entry["gain"] > -2 * entry["error"] for entry in found.values())
    better = sum(entry["gain"] > 2 * entry["error"] for entry in found.values())
    assert better >= max(1, len(found) - 1)

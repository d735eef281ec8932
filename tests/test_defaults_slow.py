"""Defaults that train, on all of `benchmarks.defaults`, with fewer tasks a step than `fit` itself has: noisier gradients,
from which a fragile method goes astray sooner, in a fraction of the time. The page of methods has the whole measure.
"""

import pytest

from benchmarks import defaults

BATCH = {"numbers": 4, "classes": 8, "only classes": 8}


@pytest.fixture(scope="session", params=list(defaults.KINDS))
def joined(request, data):
    return request.param, defaults.members(request.param, data)


@pytest.mark.slow
@pytest.mark.parametrize("name,joined", defaults.CASES, indirect=["joined"])
def test_defaults_train(name, joined):
    kind, tables = joined
    result = defaults.measure(name, kind, tables, BATCH[kind])
    print(name, kind, result)
    assert defaults.violations({kind: {name: result}}) == []

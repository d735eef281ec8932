"""What tests of several protocols ask of an outcome."""

from metaprior.protocols.protocol import Drawn


def quiet(done, what):
    """Tells nobody."""


def by(outcome, setting, metric):
    """The value of one figure."""
    return next(f.value for f in outcome.figures if (f.setting, f.metric) == (setting, metric))


def check(protocol, outcome, options, data=None):
    """Figures are of known metrics, columns have one length, pictures and the sentence are made."""
    assert {f.metric for f in outcome.figures} <= set(protocol.metrics)
    assert len({len(v) for v in outcome.predictions.values()}) == 1
    cells = [Drawn("maml", 0, outcome.figures, outcome.drawing)]
    pictures = protocol.draw(cells, options, data)
    assert pictures and all(p.svg.startswith("<svg") for p in pictures)
    if protocol.sentence:
        assert isinstance(protocol.sentence(cells), str)

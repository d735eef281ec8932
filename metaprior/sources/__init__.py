"""Sources of tasks: callables from a random key to a `Task`.

Some know the exact posterior of their own tasks: `source.exact(support)`.
"""

from metaprior.sources.ambiguous import SineLine
from metaprior.sources.attributes import SharedAttributes
from metaprior.sources.circles import Circles
from metaprior.sources.episodes import Episodes
from metaprior.sources.gaussian_process import GP
from metaprior.sources.harmonic import Harmonic
from metaprior.sources.labelled import Labelled
from metaprior.sources.linear import Linear
from metaprior.sources.pacoh import Cauchy, CauchyMixture, SlopedSine
from metaprior.sources.sinusoid import Sinusoid
from metaprior.sources.table import Table
from metaprior.sources.views import ObjectViews
from metaprior.sources.wheel import Wheel

__all__ = [
    "GP",
    "Cauchy",
    "CauchyMixture",
    "Circles",
    "Episodes",
    "Harmonic",
    "Labelled",
    "Linear",
    "ObjectViews",
    "SharedAttributes",
    "SineLine",
    "Sinusoid",
    "SlopedSine",
    "Table",
    "Wheel",
]

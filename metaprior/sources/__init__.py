"""Sources of tasks: callables from a random key to a `Task`."""

from metaprior.sources.ambiguous import SineLine
from metaprior.sources.episodes import Episodes
from metaprior.sources.gaussian_process import GP
from metaprior.sources.harmonic import Harmonic
from metaprior.sources.linear import Linear
from metaprior.sources.pacoh import Cauchy, SlopedSine
from metaprior.sources.sinusoid import Sinusoid
from metaprior.sources.table import Table

__all__ = ["GP", "Cauchy", "Episodes", "Harmonic", "Linear", "SineLine", "Sinusoid", "SlopedSine", "Table"]

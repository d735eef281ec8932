"""Sources of tasks: callables from a random key to a `Task`."""

from metaprior.sources.table import Table

__all__ = ["Table"]

"""THE TABLE of methods: a new method is one file and one row here."""

from metaprior.methods.process import Process

__all__ = ["Process"]

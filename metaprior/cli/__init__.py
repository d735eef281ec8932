"""The command line."""

from metaprior.cli.app import main

__all__ = ["main"]

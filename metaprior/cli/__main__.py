"""`python -m metaprior.cli` is `metaprior`."""

from metaprior.cli.app import main

main()

"""`python -m metaprior` is the command `metaprior`."""

from metaprior.cli.app import main

if __name__ == "__main__":
    main()

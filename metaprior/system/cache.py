"""Where compiled programs are kept between processes."""

import functools
import os
from pathlib import Path

# Reading an entry takes longer than compiling the smallest programs.
LEAST_SECONDS = 0.2


def folder() -> str | None:
    """The folder that METAPRIOR_CACHE names, or else one in the user's cache folder.

    It can lie in an image or in a home that machines share: entries are found by what they depend
    on. `None` where METAPRIOR_CACHE is empty, and where the folder cannot be written: the cache
    saves time, but nothing needs it.
    """
    path = os.environ.get("METAPRIOR_CACHE")
    if path is None:
        from platformdirs import user_cache_path

        path = str(user_cache_path("metaprior", appauthor=False) / "compiled")
    return _usable(path) if path else None


@functools.cache  # every call of a kept program asks
def _usable(path: str) -> str | None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return path if os.access(path, os.W_OK) else None

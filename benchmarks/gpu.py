"""What a GPU can do at best, as JSON: its name, and the two bounds of the roofline.

    python -m benchmarks.gpu

The roofline is that of Williams et al., 2009.
"""

import json
import time
from typing import Any

GIB = 2**30
PRECISION = "highest"  # that of metaprior's matrix products


def best(call: Any, *arguments: Any, repeats: int = 5, many: int = 10) -> float:
    """Seconds of one call, the least of some repeats of many calls."""
    import jax

    jax.block_until_ready(call(*arguments))
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(many):
            result = call(*arguments)
        jax.block_until_ready(result)
        found.append((time.perf_counter() - began) / many)
    return min(found)


def bounds(size: int = 8192, floats: int = GIB) -> dict[str, Any]:
    """Of the first device that JAX has.

    Returns:
        `device`; `precision`, that of JAX's float32 matrix products in metaprior; `peak_gflops` of
        a large one in it, and `tf32_gflops` in JAX's own default; `bandwidth`, GB/s of adding 1 to
        a large array, read and written.
    """
    import jax
    import jax.numpy as jnp

    a = jax.random.normal(jax.random.key(0), (size, size))
    x = jnp.zeros(floats)

    def product(precision):
        return best(jax.jit(lambda a: jnp.matmul(a, a, precision=precision)), a)

    def gflops(precision):
        return round(2e-9 * size**3 / product(precision), 1)

    return {
        "device": jax.devices()[0].device_kind,
        "precision": PRECISION,
        "peak_gflops": gflops(PRECISION),
        "tf32_gflops": gflops("default"),
        "bandwidth": round(8e-9 * floats / best(jax.jit(lambda x: x + 1), x), 1),
    }


if __name__ == "__main__":
    import jax

    if jax.default_backend() == "cpu":
        raise SystemExit(
            "JAX sees no GPU here: pip install 'jax[cuda13]', or the CUDA of the driver."
        )
    print(json.dumps(bounds()))

"""Factorisations on CPUs, one matrix after another; importing this module is what makes them so."""

import math
import os

import jax
from jax.interpreters import mlir

# XLA's CPU client (jaxlib 0.10) shares out the matrices of a batched factorisation among the threads of its pool, and
# whoever asked for it waits, in a thread of the same pool. Where as many factorisations run at once as there are threads,
# each waits for parts that stand behind the others in the queue, for ever: a dozen in one program are enough on two or
# three cores. A single matrix is factorised where the call is. So a batch is lowered to a loop over its matrices; what
# `vmap` and derivatives make of a factorisation is JAX's own, and other platforms keep theirs.
PRIMITIVES = ("cholesky", "triangular_solve", "lu", "eigh", "svd", "householder_product")


def _one_by_one(primitive, lower):
    """A lowering rule that gives `lower` single matrices only."""

    def loop(*arrays, **params):
        batch = arrays[0].shape[:-2]
        flat = [a.reshape(math.prod(batch), *a.shape[len(batch) :]) for a in arrays]
        found = jax.lax.map(lambda one: primitive.bind(*one, **params), flat)
        whole = lambda a: a.reshape(*batch, *a.shape[1:])
        return [whole(a) for a in found] if primitive.multiple_results else whole(found)

    looped = mlir.lower_fun(loop, multiple_results=primitive.multiple_results)

    def rule(ctx, *arrays, **params):
        single = math.prod(ctx.avals_in[0].shape[:-2]) == 1
        return (lower if single else looped)(ctx, *arrays, **params)

    return rule


def _install() -> None:
    try:
        rules = mlir._platform_specific_lowerings["cpu"]
        for name in PRIMITIVES:
            primitive = getattr(jax.lax.linalg, f"{name}_p")
            mlir.register_lowering(primitive, _one_by_one(primitive, rules[primitive].rule), platform="cpu")
    except (AttributeError, KeyError):  # another JAX: with one thread nobody waits, and nothing is shared out
        os.environ.setdefault("PJRT_NPROC", "1")


_install()

"""From nothing to a MAML that predicts sine waves from 10 rows, as a user would write it.

    python -m benchmarks.trained [--bound 0.40]

Prints the seconds that parts took, the training steps, and the error after 10 steps of adaptation
on 600 tasks that were not trained on.
"""

import argparse
import json
import time
from dataclasses import replace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bound", type=float, default=0.40, help="mean squared error to reach")
    parser.add_argument(
        "--inner", type=int, default=1, help="steps of adaptation in training; 10 after it"
    )
    parser.add_argument("--inner-rate", type=float, default=0.01, help="rate of adaptation")
    parser.add_argument(
        "--curvature",
        action="store_true",
        help="learn a rate for every weight and step, and Curvature",
    )
    parser.add_argument("--rate", type=float, default=3e-3, help="of Adam")
    parser.add_argument("--batch", type=int, default=25, help="tasks a step")
    parser.add_argument("--every", type=int, default=100, help="steps between looks")
    parser.add_argument("--most", type=int, default=6000, help="steps after which it gives up")
    arguments = parser.parse_args()
    began = time.perf_counter()
    import equinox as eqx
    import jax
    import optax

    import metaprior
    from metaprior.heads import Gaussian
    from metaprior.infer.descend import Curvature
    from metaprior.methods import MAML

    imported = time.perf_counter()
    source = metaprior.sources.Sinusoid()
    # With this fixed scale the loss is the squared error and a constant.
    spec = metaprior.Spec(1, Gaussian(1, scale=0.5**0.5))

    @eqx.filter_jit
    def start(key):
        options = dict(inner_lr=arguments.inner_rate, steps=arguments.inner, clip=None)
        method = MAML.init(spec, key=key, **options)
        if not arguments.curvature:
            return method
        return replace(method, inner_lr=Curvature.init(method.net, arguments.inner_rate, 10))

    @eqx.filter_jit
    def judge(method, key):
        method = replace(method, steps=10)

        def error(task):
            predicted = method.posterior(task.support, key=key).predict(
                task.query.x, key=key, samples=1
            )
            return ((predicted.mean() - task.query.y) ** 2).mean()

        return jax.vmap(error)(jax.vmap(source)(jax.random.split(key, 600))).mean()

    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(arguments.rate))
    method, state = start(jax.random.key(0)), None
    error, done, first = float("inf"), 0, 0.0
    while error >= arguments.bound and done < arguments.most:
        done += arguments.every
        fitted = metaprior.fit(
            method,
            source,
            key=jax.random.key(1),
            steps=done,
            batch=arguments.batch,
            optimiser=optimiser,
            every=arguments.every,
            state=state,
        )
        state = fitted.state
        error = float(judge(fitted.method, jax.random.key(2)))
        first = first or time.perf_counter() - imported
    now = time.perf_counter()
    found = {
        "error": error,
        "steps": done,
        "import_s": round(imported - began, 2),
        "first_look_s": round(first, 2),
        "rest_s": round(now - imported - first, 2),
        "cpu_s": round(time.process_time(), 2),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""What every learner and every method offers: the only interface `fit` and `evaluate` know."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metaprior.heads.base import AbstractHead
from metaprior.heads.categorical import Categorical
from metaprior.posterior import AbstractPosterior
from metaprior.task import Data, Task


class Spec(eqx.Module):
    """The shape of the tasks a method is built for.

    Args:
        x_dim: number of input columns.
        head: what is predicted at a point.
        pooled: how many of the last input columns are a pooled model's out-of-fold prediction: 0
            for none, 1 for numbers (the predicted outcome itself), `C` for classes (log
            probabilities). Some methods use them as a mean function; to the others they are inputs
            like any other.
        net: makes the network of x where it should not be the method's own: `(outputs, *, key) ->
            network of one row`, such as `functools.partial(Conv4.init, size=28)` for images.
        tasks: how many tasks the method will be trained on, at least 1: a number, or an array of
            one, which is no meta-parameter. `None` (default): unknown, or a stream without an end.
            Methods with a hyper-prior weigh it by that.

    Example:
        >>> import functools, jax
        >>> from metaprior import Spec, methods
        >>> from metaprior.heads import Categorical
        >>> from metaprior.nets.conv import Conv4
        >>> spec = Spec(784, Categorical(5), net=functools.partial(Conv4.init, filters=8))
        >>> type(methods.ProtoNet.init(spec, key=jax.random.key(0)).net).__name__
        'Conv4'
    """

    # The head is no static field: its arrays, where it has any, are meta-parameters.
    x_dim: int = eqx.field(static=True)
    head: AbstractHead
    pooled: int = eqx.field(static=True, default=0)
    net: Callable[..., Callable] | None = eqx.field(static=True, default=None)
    # An array where one program serves any number of tasks.
    tasks: int | Int[Array, ""] | None = None

    def __check_init__(self):
        if isinstance(self.tasks, int) and self.tasks < 1:
            raise ValueError(f"Spec takes a number of tasks of at least 1; got {self.tasks}.")

    def categorical(self, who: str) -> Categorical:
        """The head, for a method that predicts classes alone; `who` it is."""
        if not isinstance(self.head, Categorical):
            name = type(self.head).__name__
            raise TypeError(f"{who} predicts classes; the head is {name}, for numbers.")
        return self.head


class AbstractLearner(eqx.Module):
    """Turns a support set into a distribution over functions."""

    @abstractmethod
    def posterior(self, support: Data, *, key: PRNGKeyArray) -> AbstractPosterior:
        """Condition on the support rows of one task. An empty support gives the prior."""


class AbstractUpdating(AbstractLearner):
    """A learner whose posterior takes further rows without conditioning on all of them anew."""

    @abstractmethod
    def update(
        self, posterior: Any, everything: Data, new: Data, *, key: PRNGKeyArray
    ) -> AbstractPosterior:
        """The posterior given further rows.

        Args:
            posterior: what `posterior` or `update` gave for the rows before.
            everything: all rows, the new ones too; the real rows come first, and there may be more
                room than before.
            new: the new rows.
            key: what `posterior` had.
        """


def updated(
    learner: AbstractLearner, posterior: Any, everything: Data, new: Data, *, key: PRNGKeyArray
) -> AbstractPosterior:
    """The posterior given further rows: by `update`, or conditioned anew where there is none."""
    if isinstance(learner, AbstractUpdating):
        return learner.update(posterior, everything, new, key=key)
    return learner.posterior(everything, key=key)


class AbstractMethod(AbstractLearner):
    """A learner whose arrays are meta-parameters, trained over tasks by `fit`.

    Arrays are learned, Python numbers are fixed: `inner_lr=0.01` stays,
    `inner_lr=jnp.asarray(0.01)` is trained.

    `learning_rate` is the rate of the outer optimiser that `fit` takes where it is not told
    another. A method that trains better with its own rate says so in its class.
    """

    learning_rate: ClassVar[float] = 1e-3

    @classmethod
    @abstractmethod
    def init(cls, spec: Spec, *, key: PRNGKeyArray) -> Self:
        """A fresh, untrained method for tasks of this shape; methods add their own options."""

    @abstractmethod
    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """The meta-training objective on one task, to be minimised."""


class AbstractGenerative(AbstractLearner):
    """A learner whose prior p(w) and likelihood p(y | x, w) can both be evaluated.

    However such a learner approximates p(w | support), `NUTS` can draw from it exactly. The
    likelihood is `head` at `apply(w, x)`.

    Attributes:
        prior: has `sample(key=) -> w` and `log_prob(w)`, normalised, in nats; `None` where the
            settings leave the prior implicit.
        head: reads the raw outputs.
    """

    prior: eqx.AbstractVar[Any]
    head: eqx.AbstractVar[AbstractHead]

    @abstractmethod
    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs for task parameters `w`."""

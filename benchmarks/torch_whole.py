"""Every job in PyTorch as a strong user would write it: the whole step is one compiled program.

The program draws the tasks, computes the gradient of their mean loss and takes Adam's step. Tasks,
particles and draws are axes of `torch.vmap`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from benchmarks import torch_tasks
from benchmarks.cases import Case, many_of
from benchmarks.torch_bayes import kl, spreads
from benchmarks.torch_maml import MAML, Peer, error, mlp
from benchmarks.torch_sets import ACNP, ANP, CNP, ProtoNet

DECAY, RATE, FAINT = (0.9, 0.999), 1e-3, 1e-8  # Adam's, as `torch.optim` has them
SHAPES = [w.shape for w in torch_tasks.dense(1, 40, 40, 1)]


class Whole(Peer):
    """A peer whose `loss` and `ahead` are functions of the weights, compiled with all around it."""

    def start(self):
        zeros = [torch.zeros_like(w) for w in self.p]
        start = [w.detach().clone() for w in self.p]
        self.state = start, zeros, [w.clone() for w in zeros], torch.zeros(())
        # `loss` is looked up in here: what is compiled must not be what asks for it.
        self.program = torch.compile(self.whole, dynamic=False)
        self.answer = torch.compile(super().ahead, dynamic=False)

    def whole(self, p, m, v, count, tasks):
        """A step from the weights and Adam's state; `None` draws the tasks."""
        tasks = self.source(self.case.batch) if tasks is None else tasks
        gradient, loss = torch.func.grad_and_value(self.loss)(p, *tasks)
        count = count + 1
        (a, b), found = DECAY, ([], [], [])
        for w, g, mean, square in zip(p, gradient, m, v):
            mean, square = a * mean + (1 - a) * g, b * square + (1 - b) * g**2
            size = (square / (1 - b**count)).sqrt() + FAINT
            for some, new in zip(found, (w - RATE * mean / (1 - a**count) / size, mean, square)):
                some.append(new)
        return (*found, count), loss

    def step(self):
        with torch.no_grad():
            self.state, _ = self.program(*self.state, None)
        return self.case.batch

    def backward(self, tasks):
        # The first moment of a first step says the gradient of the program that is timed.
        zeros = [torch.zeros_like(w) for w in self.p]
        with torch.no_grad():
            p = [w.detach() for w in self.p]
            (_, m, *_), loss = self.program(p, zeros, zeros, torch.zeros(()), tasks)
        for w, first in zip(self.p, m):
            w.grad = first / (1 - DECAY[0])
        return loss

    def ahead(self, p, sx, sy, qx):
        return self.answer(p, sx, sy, qx)


class Stacked(Peer):
    """Networks of sine waves whose particles, members or draws are an axis of each array."""

    def __init__(self, case: Case) -> None:
        self.many, self.rate = case.plain[many_of(case.row)], case.plain["inner_lr"]
        super().__init__(case, self.begin())

    def begin(self) -> list[Tensor]:
        each = [torch_tasks.dense(1, 40, 40, 1) for _ in range(self.many)]
        return [torch.stack(some) for some in zip(*each)]

    def moved(self, p: Any, x: Tensor, y: Tensor, rate: Any) -> list[Tensor]:
        """One step of gradient descent of one network."""
        gradient = torch.func.grad(lambda p: error(mlp(p, x), y))(p)
        return [w - rate * g for w, g in zip(p, gradient)]

    def each(self, call: Any, *axes: Any) -> Tensor:
        """Of all networks, on their axis."""
        return torch.vmap(call)(*axes)

    def loss(self, p, sx, sy, qx, qy):
        noise = self.noise(len(sx))
        along = (None, 0, 0, 0, 0, None if noise is None else 0)
        return torch.vmap(self.one, along)(p, sx, sy, qx, qy, noise).mean()

    def ahead(self, p, sx, sy, qx):
        noise = self.noise(1)
        return self.told(p, sx, sy, qx, None if noise is None else [e[0] for e in noise]).mean(0)

    def noise(self, tasks: int) -> list[Tensor] | None:
        """Standard normal numbers of a loss, `(tasks, …)`."""
        return None

    def one(self, p: Any, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor, noise: Any) -> Tensor:
        """The loss of a task."""
        raise NotImplementedError

    def told(self, p: Any, sx: Tensor, sy: Tensor, qx: Tensor, noise: Any) -> Tensor:
        """What each network says of a new task."""
        raise NotImplementedError


class Members(Stacked):
    """EMAML."""

    def one(self, p, sx, sy, qx, qy, noise):
        return self.each(lambda p: error(mlp(self.moved(p, sx, sy, self.rate), qx), qy), p).mean()

    def told(self, p, sx, sy, qx, noise):
        return self.each(lambda p: mlp(self.moved(p, sx, sy, self.rate), qx), p)


class Particles(Stacked):
    """BMAML, as `torch_bayes.BMAML`."""

    def svgd(self, p: list[Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
        def log_p(p):
            return -error(mlp(p, x), y) - 0.5e-2 / len(x) * sum((w**2).sum() for w in p)

        def flat(p):
            return torch.cat([w.flatten(1) for w in p], 1)

        at, score = flat(p), flat(torch.vmap(torch.func.grad(log_p))(p))
        square = ((at[:, None] - at[None]) ** 2).sum(-1)
        i, j = torch.triu_indices(self.many, self.many, 1)
        pairs = square.detach()[i, j].sort().values
        h = 0.5 * (pairs[(len(pairs) - 1) // 2] + pairs[len(pairs) // 2]) / math.log(self.many)
        k = torch.exp(-square / h)
        apart = k.sum(1, keepdim=True) * at - k @ at
        new = at + self.rate * (k @ score + 2 / (h * len(x)) * apart) / self.many
        sizes = [w[0].numel() for w in p]
        return [part.reshape(w.shape) for part, w in zip(new.split(sizes, 1), p)]

    def one(self, p, sx, sy, qx, qy, noise):
        chaser = self.svgd(p, sx, sy)
        if self.case.plain.get("objective") == "chaser":
            start = [w.detach() for w in chaser]
            leader = self.svgd(start, torch.cat([sx, qx]), torch.cat([sy, qy]))
            return sum(((a - b.detach()) ** 2).sum() for a, b in zip(chaser, leader))
        errors = self.each(lambda p: (mlp(p, qx) - qy)[:, 0] ** 2, chaser)
        return (math.log(self.many) - torch.logsumexp(-errors, 0)).mean()

    def told(self, p, sx, sy, qx, noise):
        return self.each(lambda p: mlp(p, qx), self.svgd(p, sx, sy))


def drawn(m: Any, s: Any, noise: Any) -> list[Tensor]:
    return [a + torch.exp(b) * e for a, b, e in zip(m, s, noise)]


class Draws(Stacked):
    """PLATIPUS, as `torch_bayes.PLATIPUS`."""

    def begin(self):
        mean = torch_tasks.dense(1, 40, 40, 1)
        return [*mean, *spreads(), *spreads(), torch.tensor(0.01), torch.tensor(0.01)]

    def noise(self, tasks):
        return [torch.randn(tasks, self.many, *shape) for shape in SHAPES]

    def one(self, p, sx, sy, qx, qy, noise):
        mean, sigma, spread, gamma_p, gamma_q = p[:6], p[6:12], p[12:18], p[18], p[19]
        q, prior = self.moved(mean, qx, qy, gamma_q), self.moved(mean, sx, sy, gamma_p)

        def risk(noise):
            return error(mlp(self.moved(drawn(q, spread, noise), sx, sy, self.rate), qx), qy)

        return self.each(risk, noise).mean() + kl(q, spread, prior, sigma) / len(qx)

    def told(self, p, sx, sy, qx, noise):
        prior = self.moved(p[:6], sx, sy, p[18])

        def said(noise):
            return mlp(self.moved(drawn(prior, p[6:12], noise), sx, sy, self.rate), qx)

        return self.each(said, noise)


class Amortised(Stacked):
    """ABML, as `torch_bayes.ABML`."""

    def begin(self):
        return [*torch_tasks.dense(1, 40, 40, 1), *spreads()]

    def noise(self, tasks):
        return [torch.randn(tasks, self.many, *shape) for shape in SHAPES + SHAPES]

    def risk(self, q: Any, x: Tensor, y: Tensor, noise: Any) -> Tensor:
        return self.each(lambda e: error(mlp(drawn(q[:6], q[6:], e), x), y), noise).mean()

    def q(self, p: Any, x: Tensor, y: Tensor, noise: Any) -> list[Tensor]:
        def bound(here):
            return self.risk(here, x, y, noise) + 0.1 * kl(here[:6], here[6:], p[:6], p[6:]) / len(
                x
            )

        return [w - self.rate * g for w, g in zip(p, torch.func.grad(bound)(p))]

    def one(self, p, sx, sy, qx, qy, noise):
        q, x, y = self.q(p, sx, sy, noise[:6]), torch.cat([sx, qx]), torch.cat([sy, qy])
        hyper = 0.5 * sum((w**2).sum() for w in p[:6])
        hyper = hyper + 0.01 * sum(torch.exp(-2 * s).sum() for s in p[6:])
        bound = 0.1 * kl(q[:6], q[6:], p[:6], p[6:]) + 1e-5 * hyper
        return self.risk(q, x, y, noise[6:]) + bound / len(x)

    def told(self, p, sx, sy, qx, noise):
        q = self.q(p, sx, sy, noise[:6])
        return self.each(lambda e: mlp(drawn(q[:6], q[6:], e), qx), noise[6:])


KINDS = {
    "maml": MAML,
    "emaml": Members,
    "bmaml": Particles,
    "platipus": Draws,
    "abml": Amortised,
    "cnp": CNP,
    "acnp": ACNP,
    "anp": ANP,
    "protonet": ProtoNet,
}


def make(case: Case) -> Peer:
    """The peer of a case, warmed up."""
    kind = KINDS[case.row]
    return type(f"Whole{kind.__name__}", (Whole, kind), {})(case)

"""Bayesian MAML and its relatives in PyTorch, as public repositories have them.

They loop over tasks, and over particles or draws.
"""

import math

import torch
from torch import Tensor

from benchmarks import torch_tasks
from benchmarks.cases import Case, many_of
from benchmarks.torch_maml import Peer, error, mlp

LAYERS = 6  # weights and biases of three layers


class Loop(Peer):
    """A loop over tasks; `one` is the loss of a task."""

    def __init__(self, case: Case, extra: list[Tensor] | None = None) -> None:
        self.many, self.rate = case.plain[many_of(case.row)], case.plain["inner_lr"]
        weights = [w for _ in range(self.copies_of()) for w in torch_tasks.dense(1, 40, 40, 1)]
        super().__init__(case, [*weights, *(extra or [])])

    def copies_of(self) -> int:
        return self.many

    def particles(self) -> list[list[Tensor]]:
        return [self.p[i : i + LAYERS] for i in range(0, LAYERS * self.many, LAYERS)]

    def load(self, weights):
        # metaprior stacks the particles of each array.
        with torch.no_grad():
            for m, particle in enumerate(self.particles()):
                for mine, new in zip(particle, weights, strict=True):
                    mine.copy_(new[m])

    def gradient(self):
        return [
            torch.stack([particle[i].grad for particle in self.particles()]) for i in range(LAYERS)
        ]

    def backward(self, tasks):
        total = torch.zeros(())
        for task in zip(*tasks):
            loss = self.one(*task) / len(tasks[0])
            loss.backward()
            total += loss.detach()
        return total

    def one(self, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        raise NotImplementedError

    def moved(
        self, p: list[Tensor], x: Tensor, y: Tensor, rate, second: bool = True
    ) -> list[Tensor]:
        """One step of gradient descent."""
        gradient = torch.autograd.grad(error(mlp(p, x), y), p, create_graph=second)
        return [w - rate * g for w, g in zip(p, gradient)]


class Ensemble(Loop):
    """EMAML: each member is MAML."""

    def one(self, sx, sy, qx, qy):
        losses = [error(mlp(self.moved(p, sx, sy, self.rate), qx), qy) for p in self.particles()]
        return torch.stack(losses).mean()

    def predict(self, sx, sy, qx):
        return torch.stack(
            [mlp(self.moved(p, sx, sy, self.rate, False), qx) for p in self.particles()]
        ).mean(0)


class BMAML(Loop):
    """One step of SVGD with the median bandwidth, then the mixture's loss or that of a leader."""

    def svgd(
        self, particles: list[list[Tensor]], x: Tensor, y: Tensor, second: bool = True
    ) -> list[list[Tensor]]:
        precision = 1e-2 / len(x)  # metaprior's default
        scores = []
        for p in particles:
            log_p = -error(mlp(p, x), y) - 0.5 * precision * sum((w**2).sum() for w in p)
            gradient = torch.autograd.grad(log_p, p, create_graph=second)
            scores.append(torch.cat([g.flatten() for g in gradient]))
        flat, score = (
            torch.stack([torch.cat([w.flatten() for w in p]) for p in particles]),
            torch.stack(scores),
        )
        with torch.no_grad():
            h = torch.quantile(torch.pdist(flat) ** 2, 0.5) / math.log(self.many)
        k = torch.exp(-((flat[:, None] - flat[None]) ** 2).sum(-1) / h)
        apart = k.sum(1, keepdim=True) * flat - k @ flat
        new = flat + self.rate * (k @ score + 2 / (h * len(x)) * apart) / self.many
        sizes = [w.numel() for w in particles[0]]
        return [[part.view_as(w) for part, w in zip(row.split(sizes), particles[0])] for row in new]

    def one(self, sx, sy, qx, qy):
        chaser = self.svgd(self.particles(), sx, sy)
        if self.case.plain.get("objective") == "chaser":
            start = [[w.detach().requires_grad_() for w in p] for p in chaser]
            leader = self.svgd(start, torch.cat([sx, qx]), torch.cat([sy, qy]), second=False)
            return sum(
                ((a - b.detach()) ** 2).sum() for p, q in zip(chaser, leader) for a, b in zip(p, q)
            )
        errors = torch.stack([(mlp(p, qx) - qy)[:, 0] ** 2 for p in chaser])
        return (math.log(self.many) - torch.logsumexp(-errors, 0)).mean()

    def predict(self, sx, sy, qx):
        return torch.stack([mlp(p, qx) for p in self.svgd(self.particles(), sx, sy, False)]).mean(0)


def kl(m: list[Tensor], s: list[Tensor], m0: list[Tensor], s0: list[Tensor]) -> Tensor:
    """Between diagonal normals with means m and log standard deviations s."""
    terms = zip(m, s, m0, s0)
    return sum(
        (d - b + 0.5 * (torch.exp(2 * (b - d)) + ((a - c) * torch.exp(-d)) ** 2 - 1)).sum()
        for a, b, c, d in terms
    )


def draw(m: list[Tensor], s: list[Tensor]) -> list[Tensor]:
    return [a + torch.exp(b) * torch.randn_like(a) for a, b in zip(m, s)]


def spreads() -> list[Tensor]:
    return [torch.full_like(w, math.log(0.02)) for w in torch_tasks.dense(1, 40, 40, 1)]


class PLATIPUS(Loop):
    """Draws from a normal that a step on the query moved; a step on the support moves each draw."""

    def __init__(self, case):
        super().__init__(case, [*spreads(), *spreads(), torch.tensor(0.01), torch.tensor(0.01)])

    def copies_of(self):
        return 1

    def parts(self):
        mean, sigma, spread = self.p[:6], self.p[6:12], self.p[12:18]
        return mean, sigma, spread, self.p[18], self.p[19]

    def one(self, sx, sy, qx, qy):
        mean, sigma, spread, gamma_p, gamma_q = self.parts()
        q, p = self.moved(mean, qx, qy, gamma_q), self.moved(mean, sx, sy, gamma_p)
        losses = []
        for _ in range(self.many):
            w = self.moved(draw(q, spread), sx, sy, self.rate)
            losses.append(error(mlp(w, qx), qy))
        return torch.stack(losses).mean() + kl(q, spread, p, sigma) / len(qx)

    def predict(self, sx, sy, qx):
        mean, sigma, _, gamma, _ = self.parts()
        p = self.moved(mean, sx, sy, gamma, False)
        return torch.stack(
            [
                mlp(self.moved(draw(p, sigma), sx, sy, self.rate, False), qx)
                for _ in range(self.many)
            ]
        ).mean(0)


class ABML(Loop):
    """One step of Bayes by backprop from the prior; both expectations from draws."""

    def __init__(self, case):
        super().__init__(case, spreads())

    def copies_of(self):
        return 1

    def q(self, x, y, second=True):
        start, m0, s0 = self.p, self.p[:6], self.p[6:]
        # q starts as the prior but is another variable, so that KL has a gradient of its own.
        here = (
            [w.clone() for w in start] if second else [w.detach().requires_grad_() for w in start]
        )
        risk = torch.stack(
            [error(mlp(draw(here[:6], here[6:]), x), y) for _ in range(self.many)]
        ).mean()
        bound = risk + 0.1 * kl(here[:6], here[6:], m0, s0) / len(x)
        gradient = torch.autograd.grad(bound, here, create_graph=second)
        return [w - self.rate * g for w, g in zip(here, gradient)]

    def one(self, sx, sy, qx, qy):
        q, x, y = self.q(sx, sy), torch.cat([sx, qx]), torch.cat([sy, qy])
        risk = torch.stack([error(mlp(draw(q[:6], q[6:]), x), y) for _ in range(self.many)]).mean()
        mean, spread = self.p[:6], self.p[6:]
        hyper = 0.5 * sum((w**2).sum() for w in mean) + 0.01 * sum(
            torch.exp(-2 * s).sum() for s in spread
        )
        return risk + (0.1 * kl(q[:6], q[6:], mean, spread) + 1e-5 * hyper) / len(x)

    def predict(self, sx, sy, qx):
        q = self.q(sx, sy, False)
        return torch.stack([mlp(draw(q[:6], q[6:]), qx) for _ in range(self.many)]).mean(0)


PEERS = {"emaml": Ensemble, "bmaml": BMAML, "platipus": PLATIPUS, "abml": ABML}

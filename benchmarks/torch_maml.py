"""MAML in PyTorch: with vmap (also compiled), as an eager loop over tasks, and with `higher`."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from benchmarks import torch_tasks
from benchmarks.cases import COMPILED, FUNC, HIGHER, Case


def mlp(p: list[Tensor], x: Tensor) -> Tensor:
    for i in range(0, len(p) - 2, 2):
        x = f.relu(f.linear(x, p[i], p[i + 1]))
    return f.linear(x, p[-2], p[-1])


def conv4(p: list[Tensor], x: Tensor, pooled: bool = False) -> Tensor:
    """Four blocks of convolution, group normalisation and ReLU.

    Each halves the image, by a stride or by a max-pool.
    """
    x = x.reshape(-1, 1, 28, 28)
    for i in range(4):
        x = f.conv2d(x, p[i], stride=1 if pooled else 2, padding=1)
        x = f.relu(f.group_norm(x, 8, p[4 + 2 * i], p[5 + 2 * i]))
        x = f.max_pool2d(x, 2) if pooled else x
    return f.linear(x.flatten(1), p[12], p[13])


def conv4_weights(outputs: int, features: int) -> list[Tensor]:
    kernels = [torch.randn(64, c, 3, 3) * (2 / (9 * c)) ** 0.5 for c in (1, 64, 64, 64)]
    norms = [part for _ in range(4) for part in (torch.ones(64), torch.zeros(64))]
    return [*kernels, *norms, *torch_tasks.dense(features, outputs)]


def error(raw: Tensor, y: Tensor) -> Tensor:
    """Squared error, or cross-entropy where y is a class."""
    return ((raw - y) ** 2).mean() if raw.shape[-1] == 1 else f.cross_entropy(raw, y[..., 0].long())


class Peer:
    """What all peers share: Adam, a source of tasks, the comparison with metaprior's gradient."""

    def __init__(self, case: Case, weights: list[Tensor]) -> None:
        self.case, self.source = case, torch_tasks.source_of(case)
        self.p = [w.clone().requires_grad_() for w in weights]
        self.start()
        sx, sy, qx, _ = (a[0].cpu().numpy() for a in self.source(1))
        self.shown = sx, sy, qx
        for _ in range(2):
            self.step()
            self.adapt()

    def start(self) -> None:
        self.optimiser = torch.optim.Adam(self.p, 1e-3, fused=True)

    def step(self) -> int:
        """One meta-step; how many tasks that was."""
        self.optimiser.zero_grad()
        self.backward(self.source(self.case.batch))
        self.optimiser.step()
        return self.case.batch

    def backward(self, tasks: torch_tasks.Tasks) -> Tensor:
        """The mean loss; its gradient is left with the weights."""
        loss = self.loss(self.p, *tasks)
        loss.backward()
        return loss.detach()

    def loss(self, p: Any, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        """Mean over tasks."""
        raise NotImplementedError

    def ahead(self, p: Any, sx: Tensor, sy: Tensor, qx: Tensor) -> Tensor:
        """What is predicted for the query rows of a task."""
        raise NotImplementedError

    def adapt(self) -> None:
        """From the rows of a new task to predictions, as numpy arrays on both ends."""
        self.predict(*(torch.as_tensor(a) for a in self.shown)).detach().cpu().numpy()

    def finish(self) -> None:
        """Wait for what a GPU still has to do."""
        if torch.get_default_device().type == "cuda":
            torch.cuda.synchronize()

    def predict(self, sx: Tensor, sy: Tensor, qx: Tensor) -> Tensor:
        with torch.no_grad():
            return self.ahead([w.detach() for w in self.p], sx, sy, qx)

    def load(self, weights: list[Tensor]) -> None:
        """Take these weights, metaprior's."""
        with torch.no_grad():
            for mine, new in zip(self.p, torch_tasks.convert(self.case, weights), strict=True):
                mine.copy_(new)

    def gradient(self) -> list[Tensor]:
        """What `backward` left, in the order of metaprior's weights."""
        return [w.grad for w in self.p]

    def check(self, path: str) -> dict[str, float] | None:
        """Relative distance of loss and gradient to metaprior's, for its weights and tasks."""
        import numpy as np

        if self.case.random:
            return None
        with np.load(path) as file:
            read = {name: torch.as_tensor(file[name].copy()) for name in file.files}
        many = sum(name.startswith("w") for name in read)
        self.load([read[f"w{i}"] for i in range(many)])
        for w in self.p:
            w.grad = None
        loss = self.backward(tuple(read[name] for name in ("sx", "sy", "qx", "qy")))
        own = torch.cat([g.flatten() for g in self.gradient()])
        other = torch.cat(
            [
                g.flatten()
                for g in torch_tasks.convert(self.case, [read[f"g{i}"] for i in range(many)])
            ]
        )

        def distance(a, b):
            return float((a - b).norm() / b.norm())

        return {
            "loss": distance(loss, read["loss"].to(loss.dtype)),
            "gradient": distance(own, other),
        }


class MAML(Peer):
    """torch.func: the mean over vmapped tasks, each with its inner gradient."""

    def __init__(self, case: Case) -> None:
        self.net = mlp if case.kind == "sinusoid" else conv4
        super().__init__(case, weights_of(case))

    def descend(self, p: Any, x: Tensor, y: Tensor) -> list[Tensor]:
        inside = torch.func.grad(lambda p: error(self.net(p, x), y))
        for _ in range(self.case.plain["steps"]):
            p = [w - self.case.plain["inner_lr"] * g for w, g in zip(p, inside(p))]
        return p

    def loss(self, p, *tasks):
        def one(p, sx, sy, qx, qy):
            return error(self.net(self.descend(p, sx, sy), qx), qy)

        return torch.vmap(one, (None, 0, 0, 0, 0))(p, *tasks).mean()

    def ahead(self, p, sx, sy, qx):
        return self.net(self.descend(p, sx, sy), qx)


class Functional(MAML):
    """The gradient of that; `compiled`, both it and the prediction."""

    compiled = False

    def start(self):
        super().start()
        wrap = torch.compile if self.compiled else lambda call: call
        self.both = wrap(torch.func.grad_and_value(self.loss))
        self.answer = wrap(super().ahead)

    def backward(self, tasks):
        with torch.no_grad():
            gradient, loss = self.both([w.detach() for w in self.p], *tasks)
        for w, g in zip(self.p, gradient):
            w.grad = g
        return loss

    def ahead(self, p, sx, sy, qx):
        return self.answer(p, sx, sy, qx)


class Compiled(Functional):
    compiled = True


class Eager(Peer):
    """A loop over tasks with `torch.autograd.grad`, as most public repositories have it."""

    def __init__(self, case: Case, weights: list[Tensor], net: Any) -> None:
        self.net = net
        super().__init__(case, weights)

    def adapted(self, sx: Tensor, sy: Tensor, second: bool) -> list[Tensor]:
        p = self.p
        for _ in range(self.case.plain["steps"]):
            gradient = torch.autograd.grad(error(self.net(p, sx), sy), p, create_graph=second)
            p = [w - self.case.plain["inner_lr"] * g for w, g in zip(p, gradient)]
        return p

    def backward(self, tasks):
        total = torch.zeros(())
        for sx, sy, qx, qy in zip(*tasks):
            loss = error(self.net(self.adapted(sx, sy, True), qx), qy) / len(tasks[0])
            loss.backward()
            total += loss.detach()
        return total

    def predict(self, sx, sy, qx):
        return self.net(self.adapted(sx, sy, False), qx)


class Conv(nn.Module):
    """`conv4` with strides as a module: its parameters come in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c, 64, 3, stride=2, padding=1, bias=False) for c in (1, 64, 64, 64)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, 64) for _ in range(4))
        self.last = nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 1, 28, 28)
        for conv, norm in zip(self.convs, self.norms):
            x = f.relu(norm(conv(x)))
        return self.last(x.flatten(1))


class Higher(Peer):
    """Grefenstette et al.'s `higher`, as in its documentation: one inner loop for each task."""

    def start(self) -> None:
        wide = nn.Sequential(
            nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)
        )
        self.net = wide if self.case.kind == "sinusoid" else Conv()
        self.p = list(self.net.parameters())
        self.inner = torch.optim.SGD(self.net.parameters(), lr=self.case.plain["inner_lr"])
        super().start()

    def backward(self, tasks):
        import higher

        total = torch.zeros(())
        for sx, sy, qx, qy in zip(*tasks):
            with higher.innerloop_ctx(self.net, self.inner, copy_initial_weights=False) as (
                net,
                inner,
            ):
                for _ in range(self.case.plain["steps"]):
                    inner.step(error(net(sx), sy))
                loss = error(net(qx), qy) / len(tasks[0])
                loss.backward()
            total += loss.detach()
        return total

    def predict(self, sx, sy, qx):
        import higher

        with higher.innerloop_ctx(self.net, self.inner, track_higher_grads=False) as (net, inner):
            for _ in range(self.case.plain["steps"]):
                inner.step(error(net(sx), sy))
            return net(qx)


def weights_of(case: Case) -> list[Tensor]:
    return torch_tasks.dense(1, 40, 40, 1) if case.kind == "sinusoid" else conv4_weights(5, 256)


def make(who: str, case: Case) -> Peer:
    if who in (FUNC, COMPILED):
        return (Functional if who == FUNC else Compiled)(case)
    if who == HIGHER:
        return Higher(case, weights_of(case))
    return Eager(case, weights_of(case), mlp if case.kind == "sinusoid" else conv4)

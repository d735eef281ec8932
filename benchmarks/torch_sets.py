"""Neural processes and prototypical networks in ordinary eager PyTorch, batched over tasks."""

import math

import torch
from torch import Tensor
from torch.nn import functional as f

from benchmarks.torch_maml import Peer, conv4, conv4_weights, mlp
from benchmarks.torch_tasks import dense, fan_in

WIDTH, HEADS, LATENT = 256, 8, 32


def nll(raw: Tensor, y: Tensor) -> Tensor:
    """-log N(y; mean, scale²), of every row."""
    scale = 0.01 + f.softplus(raw[..., 1:])
    return -torch.distributions.Normal(raw[..., :1], scale, validate_args=False).log_prob(y)[..., 0]


class Reader:
    """Takes weights from a list, one after the other."""

    def __init__(self, p: list[Tensor]) -> None:
        self.p, self.at = p, 0

    def take(self, n: int = 1):
        self.at += n
        return self.p[self.at - n : self.at]


class CNP(Peer):
    """A network of each row, their mean with a null row, and a network of each query point."""

    def __init__(self, case):
        weights = [
            *dense(2, WIDTH, WIDTH, WIDTH),
            0.1 * torch.randn(WIDTH),
            *dense(WIDTH + 1, WIDTH),
        ]
        super().__init__(case, [*weights, *dense(1 + WIDTH, WIDTH, WIDTH, 2)])

    def raw(self, p, sx, sy, qx):
        p = Reader(p)
        h = mlp(p.take(6), torch.cat([sx, sy], -1))
        n = h.shape[1]
        mean = (p.take()[0] + h.sum(1)) / (1 + n)
        count = torch.full((len(mean), 1), float(n)).log1p()
        r = f.linear(torch.cat([mean, count], -1), *p.take(2))
        return mlp(p.take(6), torch.cat([qx, r[:, None].expand(-1, qx.shape[1], -1)], -1))

    def loss(self, p, sx, sy, qx, qy):
        return nll(self.raw(p, sx, sy, qx), qy).mean()

    def ahead(self, p, sx, sy, qx):
        return self.raw(p, sx[None], sy[None], qx[None])[0, :, :1]


def attention_weights(depth: int = 2) -> list[Tensor]:
    """Of metaprior.nets.attention.Attention, in its order."""
    w = [*dense(3, WIDTH, WIDTH), 0.1 * torch.randn(WIDTH)]
    length = torch.linspace(math.log(0.1), math.log(2.0), HEADS)[:, None]
    for _ in range(depth):
        w += [
            torch.ones(WIDTH),
            torch.zeros(WIDTH),
            torch.ones(WIDTH),
            torch.zeros(WIDTH),
            fan_in(3 * WIDTH, WIDTH),
            fan_in(WIDTH, WIDTH),
            *dense(WIDTH, 2 * WIDTH, WIDTH),
            length.clone(),
            torch.zeros(HEADS),
        ]
    return [*w, torch.ones(WIDTH), torch.zeros(WIDTH)]


def attend(p: Reader, sx: Tensor, sy: Tensor, qx: Tensor, depth: int = 2) -> Tensor:
    """What null row, support and query points have read, `(b, 1 + m + q, w)`."""

    def norm(h, a, b):
        return f.layer_norm(h, (WIDTH,), a, b)

    m = sx.shape[1]
    known = torch.cat([sx, sy, torch.ones_like(sx)], -1)
    rows = torch.cat([known, torch.cat([qx, torch.zeros_like(qx), torch.zeros_like(qx)], -1)], 1)
    each, null = p.take(4), p.take()[0]
    h = torch.cat([null.expand(len(sx), 1, -1), mlp(each, rows)], 1)
    square = (torch.cat([sx, qx], 1) - sx.transpose(1, 2)) ** 2
    square = f.pad(square, (0, 0, 1, 0))  # the null row is near to all
    for _ in range(depth):
        a1, b1, a2, b2, project, merge, *net = p.take(10)
        log_length, bias = p.take(2)
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in f.linear(norm(h, a1, b1), project).chunk(3, -1)
        )
        local = -0.5 * square[:, None] * torch.exp(-2 * log_length)[:, :, None]
        apart = torch.cat([bias[:, None, None].expand(len(h), -1, h.shape[1], 1), local], -1)
        score = query @ key[:, :, : 1 + m].transpose(2, 3) / query.shape[-1] ** 0.5 + apart
        read = (torch.softmax(score, -1) @ value[:, :, : 1 + m]).transpose(1, 2).flatten(2)
        h = h + f.linear(read, merge)
        h = h + f.linear(
            f.gelu(f.linear(norm(h, a2, b2), net[0], net[1]), approximate="tanh"), net[2], net[3]
        )
    return norm(h, *p.take(2))


class ACNP(CNP):
    """Rows and query points attend to the rows; then a network of each query point."""

    def __init__(self, case):
        Peer.__init__(self, case, [*attention_weights(), *dense(1 + WIDTH, WIDTH, WIDTH, 2)])

    def raw(self, p, sx, sy, qx):
        p = Reader(p)
        h = attend(p, sx, sy, qx)[:, 1 + sx.shape[1] :]
        return mlp(p.take(6), torch.cat([qx, h], -1))


class ANP(Peer):
    """A latent variable and attention, trained on the evidence bound with one draw."""

    def __init__(self, case):
        rest = [
            *dense(WIDTH, WIDTH, 2 * LATENT),
            *dense(1, LATENT),
            *dense(1 + 2 * LATENT + WIDTH, WIDTH, WIDTH, 2),
        ]
        self.split = len(attention_weights())
        super().__init__(case, [*attention_weights(), *rest])

    def q(self, p, x, y):
        h = attend(Reader(p), x, y, x[:, :0])
        raw = mlp(p[self.split : self.split + 4], h[:, 0] + h[:, 1:].mean(1))
        return torch.distributions.Normal(
            raw[:, :LATENT], 0.01 + f.softplus(raw[:, LATENT:]), validate_args=False
        )

    def raw(self, p, sx, sy, qx, z):
        w, b, *decoder = p[self.split + 4 :]
        z = z[:, None].expand(-1, qx.shape[1], -1)
        h = attend(Reader(p), sx, sy, qx)[:, 1 + sx.shape[1] :]
        return mlp(decoder, torch.cat([qx, z, z * f.linear(qx, w, b), h], -1))

    def loss(self, p, sx, sy, qx, qy):
        prior = self.q(p, sx, sy)
        posterior = self.q(p, torch.cat([sx, qx], 1), torch.cat([sy, qy], 1))
        z = posterior.rsample()
        gap = (posterior.log_prob(z) - prior.log_prob(z)).sum(-1)
        return (nll(self.raw(p, sx, sy, qx, z), qy).mean(1) + gap / qx.shape[1]).mean()

    def ahead(self, p, sx, sy, qx):
        z = self.q(p, sx[None], sy[None]).sample()
        return self.raw(p, sx[None], sy[None], qx[None], z)[0, :, :1]


class ProtoNet(Peer):
    """All images of all tasks at once; squared distances to the mean of each class."""

    def __init__(self, case):
        super().__init__(case, conv4_weights(64, 64))

    def logits(self, p, sx, sy, qx):
        b, s = sx.shape[:2]
        features = conv4(p, torch.cat([sx, qx], 1).flatten(0, 1), pooled=True).unflatten(0, (b, -1))
        hot = f.one_hot(sy[..., 0].long(), 5).to(features.dtype)
        prototypes = hot.transpose(1, 2) @ features[:, :s] / hot.sum(1)[..., None]
        return -((features[:, s:, None] - prototypes[:, None]) ** 2).sum(-1)

    def loss(self, p, sx, sy, qx, qy):
        return f.cross_entropy(self.logits(p, sx, sy, qx).flatten(0, 1), qy.flatten().long())

    def ahead(self, p, sx, sy, qx):
        return torch.softmax(self.logits(p, sx[None], sy[None], qx[None])[0], -1)


PEERS = {"cnp": CNP, "acnp": ACNP, "anp": ANP, "protonet": ProtoNet}

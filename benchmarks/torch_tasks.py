"""Tasks in PyTorch, drawn anew for every meta-step, and weights handed over from metaprior."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import SHOTS, Case

Tasks = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # support x and y, query x and y; the first axis is of tasks


def sinusoids(batch: int) -> Tasks:
    """As `metaprior.sources.Sinusoid`."""
    support, query = SHOTS["sinusoid"]
    amplitude = 0.1 + 4.9 * torch.rand(batch, 1, 1)
    phase = torch.pi * torch.rand(batch, 1, 1)
    x = 10 * torch.rand(batch, support + query, 1) - 5
    y = amplitude * torch.sin(x - phase)
    return x[:, :support], y[:, :support], x[:, support:], y[:, support:]


def processes(batch: int) -> Tasks:
    """As `metaprior.sources.GP("eq")`: unit variance, length 0.25, noise 0.05."""
    support, query = SHOTS["gp"]
    x = 4 * torch.rand(batch, support + query, 1) - 2
    square = (x - x.transpose(1, 2)) ** 2
    gram = torch.exp(-0.5 * square / 0.25**2) + (0.05**2 + 1e-6) * torch.eye(support + query)
    y = torch.linalg.cholesky(gram) @ torch.randn(batch, support + query, 1)
    return x[:, :support], y[:, :support], x[:, support:], y[:, support:]


class Images:
    """As `metaprior.sources.Episodes`: 5 of 50 classes, 2 of 20 images of each, from memory."""

    def __init__(self) -> None:
        self.pixels = torch.randint(0, 256, (50, 20, 28 * 28), dtype=torch.uint8)

    def __call__(self, batch: int) -> Tasks:
        classes = torch.rand(batch, 50).topk(5).indices
        images = torch.rand(batch, 5, 20).topk(2).indices
        x = self.pixels[classes[..., None], images].float() / 255
        y = torch.arange(5).expand(batch, 5)[..., None].float()
        return x[:, :, 0], y, x[:, :, 1], y


def source_of(case: Case) -> Any:
    return {"sinusoid": sinusoids, "gp": processes}.get(case.kind) or Images()


def convert(case: Case, arrays: list[Tensor]) -> list[Tensor]:
    """Weights (or their gradient) of metaprior, in its order, in PyTorch's layout.

    Linear layers are alike in both. Of Conv4: kernels `(f, 9 c)`, and the last layer reads height,
    width, channels.
    """
    if case.kind != "images":
        return arrays
    kernels = [a.reshape(len(a), 3, 3, -1).permute(0, 3, 1, 2).contiguous() for a in arrays[:4]]
    last = arrays[12]
    side = round((last.shape[1] // 64) ** 0.5)
    last = last.reshape(-1, side, side, 64).permute(0, 3, 1, 2).flatten(1).contiguous()
    return [*kernels, *arrays[4:12], last, *arrays[13:]]


def fan_in(*shape: int) -> Tensor:
    """Uniform in ±1/sqrt(fan-in), as layers start in both libraries."""
    return (2 * torch.rand(*shape) - 1) / shape[-1] ** 0.5


def dense(*sizes: int) -> list[Tensor]:
    """Weight and bias of each layer of a fully connected network."""
    return [part for a, b in pairwise(sizes) for part in (fan_in(b, a), fan_in(b))]

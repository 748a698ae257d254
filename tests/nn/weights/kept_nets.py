"""Networks that compute with more than their state dict: what ``test_state.py`` keeps and loads again.

Run as a user's own file. ``MATRIX`` is drawn when the file is executed.
"""

import functools
import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MATRIX = torch.randn(4, 4)


class Base(nn.Module):
    """Flattened pixels, a body of four features, logits."""

    def __init__(self, classes, channels, body):
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(16 * channels, 4), body, nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.body(self.stem(x.flatten(1))))


class Several(nn.Module):
    """Two answers of different rank."""

    def __init__(self, classes, channels):
        super().__init__()
        self.body = Base(classes, channels, Buffer())

    def forward(self, x):
        logits = self.body(x)
        return x * logits.sum(), logits


class Buffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.randn(4, 4), persistent=False)

    def forward(self, x):
        return x @ self.matrix


class Attribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix, self.order = torch.randn(4, 4, dtype=torch.float64), torch.randperm(4)

    def forward(self, x):
        return (x.double() @ self.matrix).float()[:, self.order]


class Array(nn.Module):
    def __init__(self):
        super().__init__()
        self.order, self.scale = np.random.permutation(4), np.float32(np.random.rand())

    def forward(self, x):
        return x[:, torch.from_numpy(self.order)] * float(self.scale)


class Number(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.options = random.random(), {"shift": [random.random(), "x"]}

    def forward(self, x):
        return x * self.scale + self.options["shift"][0]


@dataclass
class Config:
    matrix: torch.Tensor = field(default_factory=lambda: torch.randn(4, 4))
    rate: float = field(default_factory=random.random)


class Containers(nn.Module):
    def __init__(self):
        super().__init__()
        self.config, self.space = Config(), SimpleNamespace(t=torch.randn(4))
        self.pair, self.table = (torch.randn(4), [torch.randn(4)]), {"a": {"b": torch.randn(4)}}

    def forward(self, x):
        x = x @ self.config.matrix * self.config.rate + self.space.t
        return x + self.pair[0] + self.pair[1][0] + self.table["a"]["b"]


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(4, 4), nn.Sequential(Buffer())]

    def forward(self, x):
        return self.layers[1](self.layers[0](x))


class Closure(nn.Module):
    def __init__(self):
        super().__init__()
        matrix = torch.randn(4, 4)
        self.mix = lambda x: x @ matrix
        self.add = functools.partial(torch.add, torch.randn(4))
        self.register_forward_hook(lambda module, args, out: out @ matrix.T)

    def forward(self, x):
        return self.add(self.mix(x))


class Global(nn.Module):
    SHIFT = torch.randn(4)

    def forward(self, x):
        return x @ MATRIX + self.SHIFT


class Bfloat(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.randn(4, 4).bfloat16(), persistent=False)
        self.register_buffer("wide", torch.randn(4, dtype=torch.float64))

    def forward(self, x):
        return (x.bfloat16() @ self.matrix).float() + self.wide.float()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.views = [self.a.weight, self.a.weight[0]]
        self.register_buffer("x", torch.randn(4), persistent=False)
        self.same = self.x

    def forward(self, x):
        return F.linear(self.b(self.a(x)), self.views[0]) + self.same


class Extra(nn.Module):
    def __init__(self):
        super().__init__()
        self.t = random.random()

    def get_extra_state(self):
        return {"t": self.t, "list": [1, None, "x"]}

    def set_extra_state(self, state):
        self.t = state["t"]

    def forward(self, x):
        return x * self.t


class ExtraTensor(Extra):
    def get_extra_state(self):
        return torch.tensor([self.t], dtype=torch.float64)

    def set_extra_state(self, state):
        self.t = float(state)


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.LazyLinear(4), nn.LazyBatchNorm1d()

    def forward(self, x):
        return self.norm(self.layer(x))


class Cache(nn.Module):
    """What is cached is made of the input alone: it need not be kept."""

    def __init__(self):
        super().__init__()
        self.last, self.length = None, None

    def forward(self, x):
        if self.length != x.shape[1]:
            self.length, self.last = x.shape[1], torch.arange(x.shape[1]).float()
        return x + self.last


class Annealed(nn.Module):
    """Its temperature falls while it trains, and a statistic is kept as a plain tensor."""

    def __init__(self):
        super().__init__()
        self.t, self.seen, self.mean = 1.0, 0, torch.zeros(4)

    def forward(self, x):
        if self.training:
            self.t *= 0.9
            self.seen += 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return (x - self.mean) / self.t


class FilledLater(nn.Module):
    """Refused: the tensor is made by the first forward pass, and is another one every time."""

    def __init__(self):
        super().__init__()
        self.shift = None

    def forward(self, x):
        if self.shift is None:
            self.shift = torch.randn(4)
        return x + self.shift


class Opaque(nn.Module):
    """Refused: nobody can look into a generator."""

    def __init__(self):
        super().__init__()
        self.numbers = iter([random.random()])

    def forward(self, x):
        value = next(self.numbers)
        self.numbers = iter([value])
        return x * value


class Stochastic(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class BadExtra(Extra):
    def get_extra_state(self):
        return {"t": {1, 2}}


class Expanded(nn.Module):
    """Refused: a tensor that shares its elements cannot be set in place."""

    def __init__(self):
        super().__init__()
        self.row = torch.randn(1).expand(4)

    def forward(self, x):
        return x + self.row


KINDS = {
    "buffer": Buffer,
    "attribute": Attribute,
    "array": Array,
    "number": Number,
    "containers": Containers,
    "unregistered": Unregistered,
    "closure": Closure,
    "global": Global,
    "bfloat": Bfloat,
    "tied": Tied,
    "extra": Extra,
    "extra_tensor": ExtraTensor,
    "lazy": Lazy,
    "cache": Cache,
    "annealed": Annealed,
    "filled_later": FilledLater,
    "opaque": Opaque,
    "stochastic": Stochastic,
    "bad_extra": BadExtra,
    "expanded": Expanded,
}


def make(num_classes, in_channels, kind):
    if kind == "several":
        return Several(num_classes, in_channels)
    return Base(num_classes, in_channels, KINDS[kind]())

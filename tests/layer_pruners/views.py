"""Made-up layers for tests of layer pruners: seeded hidden states, attention, keys, angles."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from otprune import LayerPruner, LayerView, Modules, Signals


def seeded(*seeds: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(seeds) % 2**31)


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of channels (i, i + c/2) by angles [t c]."""
    half = states.shape[-1] // 2
    turned = torch.cat([-states[..., half:], states[..., :half]], dim=-1)
    return states * cos + turned * sin


@dataclass
class FakeProbe:
    """Layers with queries and keys drawn from a seed; every call is noted in ``calls``.

    Attributes:
        positions: rotary position of each of t positions.
        heads: query heads.
        groups: key heads.
        channels: of a head.
        seed: of everything; the layer's number is mixed in.
        calls: every call, as ("attention", layer, rows) or ("keys", layer) and so on.
    """

    positions: Tensor
    heads: int = 4
    groups: int = 2
    channels: int = 8
    seed: int = 0
    calls: list[tuple] = field(default_factory=list)

    def _drawn(self, layer: int, which: int, heads: int) -> Tensor:
        size = (heads, len(self.positions), self.channels)
        return torch.randn(size, generator=seeded(self.seed, layer, which))

    def attention(self, layer: int, rows: Tensor) -> Tensor:
        self.calls.append(("attention", layer, rows.tolist()))
        return self.full_attention(layer)[:, rows]

    def full_attention(self, layer: int) -> Tensor:
        """Causal attention [h t t] whose rows sum to one."""
        cos, sin = self.angles()
        query = rotated(self._drawn(layer, 0, self.heads), cos, sin)
        key = self.full_keys(layer).repeat_interleave(self.heads // self.groups, 0)
        logits = query @ key.transpose(1, 2) / self.channels**0.5
        t = len(self.positions)
        return logits.masked_fill(~torch.ones(t, t).tril().bool(), float("-inf")).softmax(-1)

    def keys(self, layer: int) -> Tensor:
        self.calls.append(("keys", layer))
        return self.full_keys(layer)

    def full_keys(self, layer: int) -> Tensor:
        return rotated(self._drawn(layer, 1, self.groups), *self.angles())

    def rotary(self, layer: int) -> tuple[Tensor, Tensor]:
        self.calls.append(("rotary", layer))
        return self.angles()

    def angles(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines [t c]."""
        rates = 10000.0 ** (-torch.arange(0, self.channels, 2) / self.channels)
        angles = (self.positions.float()[:, None] * rates).repeat(1, 2)
        return angles.cos(), angles.sin()

    def final_norm(self, hidden: Tensor) -> Tensor:
        self.calls.append(("final_norm",))
        return hidden * torch.rsqrt(hidden.float().pow(2).mean(-1, keepdim=True) + 1e-5)


def make_view(
    *,
    layer: int = 2,
    before: int = 5,
    visual: int = 20,
    after: int = 6,
    answer: int = 0,
    n: int | None = None,
    numbers: Tensor | None = None,
    hidden: int = 16,
    seed: int = 0,
    positions: Tensor | None = None,
    accumulated: Tensor | None = None,
    started: object = None,
    signals: Signals | None = None,
    **probe: int,
) -> LayerView:
    """One image of ``visual`` tokens between ``before`` and ``after`` tokens of text.

    Their ``numbers`` default to a seeded choice out of ``n`` (itself ``visual`` by default). After
    the question follow ``answer`` tokens of a given answer.
    """
    t = before + visual + after + answer
    n = visual if n is None else n
    if numbers is None:
        numbers = torch.randperm(n, generator=seeded(seed, 1))[:visual].sort().values
    if positions is None:
        positions = torch.arange(t)
    view = LayerView(
        layer=layer,
        hidden=torch.randn(t, hidden, generator=seeded(seed, 2)),
        visual=torch.arange(before, before + visual),
        numbers=numbers,
        n=n,
        question=torch.arange(before + visual, before + visual + after),
        positions=positions,
        probe=FakeProbe(positions, seed=seed, **probe),
        accumulated=accumulated,
        started=started,
    )
    return view if signals is None else replace(view, signals=signals)


def make_modules(
    *, rows: int = 1, t: int = 12, hidden: int = 16, layer: int = 0, seed: int = 0
) -> Modules:
    """What goes into a layer's halves and comes out; no padding."""
    parts = [torch.randn(rows, t, hidden, generator=seeded(seed, layer, part)) for part in range(4)]
    return Modules(layer, *parts, valid=torch.ones(rows, t, dtype=torch.bool))


def pruned(pruner: LayerPruner, view: LayerView, k: int) -> list[int]:
    """Numbers of the tokens that stay, ascending."""
    return view.numbers[pruner.prune(view, k).index].sort().values.tolist()

"""Which tokens are kept: the selectors, OTPrune with one step of its kernel changed, and swaps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otprune import Signals, make_pruner
from otprune.greedy import greedy_logdet_batch
from otprune.kernels import FactoredKernel, squared_gram
from otprune.registry import SELECTORS

RATIOS = (0.5, 0.25, 0.1)
SEEDS = (0, 1, 2)
ATTENDED = 64
"""How many tokens count as the most attended ones; chosen on formulas of another seed."""

STUDIED = 0.25
"""The ratio at which the kernel is taken apart and tokens are swapped."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of one image.

    Attributes:
        number: of the formula.
        grid: rows and columns of tokens.
        tokens: [n d].
        kinds: [n] kind of each patch, see `reader.fit`.
        attention: [n], see `reader.Reader.attention`, when nothing is pruned.
    """

    number: int
    grid: tuple[int, int]
    tokens: Tensor
    kinds: Tensor
    attention: Tensor

    @property
    def attended(self) -> Tensor:
        """Positions of the most attended tokens, the most attended first."""
        return self.attention.topk(min(ATTENDED, len(self.tokens))).indices


Rule = Callable[[Picture, int], Tensor]
"""Returns k picks of a picture, in any order."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to prune.

    Attributes:
        name: as in tables.
        ratio: share of the tokens that is kept.
        rule: which.
        part: "methods", "kernel" or "swaps".
        seed: of a random rule.
    """

    name: str
    ratio: float
    rule: Rule = field(repr=False)
    part: str = "methods"
    seed: int = 0

    @property
    def label(self) -> str:
        """A name for files and columns."""
        return f"{self.name} {self.ratio:g} s{self.seed}"


def method(name: str, **settings: Any) -> Rule:
    """Return the rule of a selector."""
    pruner: Any = make_pruner(name, **settings)

    def rule(picture: Picture, k: int) -> Tensor:
        signals = Signals(grid=picture.grid, image_id=picture.number)
        return pruner.rank(picture.tokens, k, signals)

    return rule


@dataclass(frozen=True, slots=True)
class Kernel:
    """OTPrune's rule with steps of its kernel switched; as it stands, the released one.

    Attributes:
        centred: the mean token is subtracted first.
        columns: channels are scaled to unit length over the tokens.
        rows: then each token is scaled to unit length.
        squared: K = I + γ (V Vᵀ)²; else K = I + γ V Vᵀ.
        strength: γ is chosen so that the mean of γ M_ii is this many times what the released kernel
            has on the same image; so γ means the same under every scaling.
    """

    centred: bool = False
    columns: bool = True
    rows: bool = False
    squared: bool = True
    strength: float = 1.0

    def __call__(self, picture: Picture, k: int) -> Tensor:
        """Return k picks, greedily."""
        released = Kernel()
        wanted = 0.01 * float(released.moments(picture.tokens).diagonal().mean())
        moments = self.moments(picture.tokens)
        gamma = self.strength * wanted / float(moments.diagonal().mean())
        kernel = FactoredKernel(moments.factor, moments.middle, scale=gamma, ridge=1.0)
        return greedy_logdet_batch([kernel], [k])[0].order

    def moments(self, tokens: Tensor) -> FactoredKernel:
        """Return M, which γ multiplies."""
        found = tokens.double()
        if self.centred:
            found = found - found.mean(0)
        if self.columns:
            found = torch.nn.functional.normalize(found, dim=0)
        if self.rows:
            found = torch.nn.functional.normalize(found, dim=1)
        return squared_gram(found) if self.squared else FactoredKernel(found)


def swapped(rule: Rule, count: int, what: str) -> Rule:
    """Return a rule whose last picks give way to tokens that it did not pick.

    Args:
        rule: the rule.
        count: of tokens that come in.
        what: "attended": the most attended tokens, where not picked already; "ink": random ones
            with ink; "others": random ones that are not among the most attended.
    """

    def changed(picture: Picture, k: int) -> Tensor:
        picks = rule(picture, k)
        if what == "attended":
            new = picture.attended[:count]
            return torch.cat([new, picks[~torch.isin(picks, new)]])[:k]
        free = ~torch.isin(torch.arange(len(picture.tokens)), picks)
        free[picture.attended] = False
        if what == "ink":
            free &= picture.kinds == 2
        places = free.nonzero()[:, 0]
        generator = torch.Generator().manual_seed(picture.number)
        new = places[torch.randperm(len(places), generator=generator)[:count]]
        return torch.cat([new, picks])[:k]

    return changed


def without_attended(rule: Rule) -> Rule:
    """Return a rule that passes over the most attended tokens and picks on."""

    def changed(picture: Picture, k: int) -> Tensor:
        most = min(len(picture.tokens), k + len(picture.attended))
        picks = rule(picture, most)
        return picks[~torch.isin(picks, picture.attended)][:k]

    return changed


def all_settings() -> list[Setting]:
    """Return every setting of the study."""
    found = [
        Setting(name, ratio, method(name))
        for ratio in RATIOS
        for name in sorted(SELECTORS)
        if name != "random" and _needs_tokens_alone(name)
    ]
    found += [Setting("otprune, paper", r, method("otprune", preset="paper")) for r in RATIOS]
    found += [Setting("otprune, γ auto", r, method("otprune", gamma="auto")) for r in RATIOS]
    found += [
        Setting("random", ratio, method("random", seed=seed), seed=seed)
        for ratio in RATIOS
        for seed in SEEDS
    ]
    kernels = {
        "channels as they are": Kernel(columns=False),
        "centred": Kernel(centred=True),
        "not squared": Kernel(squared=False),
        "tokens of unit length": Kernel(rows=True),
        "γ x 100": Kernel(strength=100.0),
        "γ x 10,000": Kernel(strength=10_000.0),
        "unit length, γ x 100": Kernel(rows=True, strength=100.0),
    }
    found += [Setting(name, STUDIED, rule, "kernel") for name, rule in kernels.items()]
    ours = method("otprune")
    swaps = {
        "otprune + 4 attended": swapped(ours, 4, "attended"),
        "otprune + 16 attended": swapped(ours, 16, "attended"),
        f"otprune + {ATTENDED} attended": swapped(ours, ATTENDED, "attended"),
        f"otprune + {ATTENDED} with ink": swapped(ours, ATTENDED, "ink"),
        f"otprune + {ATTENDED} others": swapped(ours, ATTENDED, "others"),
        "random without attended": without_attended(method("random", seed=0)),
        "w2greedy without attended": without_attended(method("w2greedy")),
    }
    found += [Setting(name, STUDIED, rule, "swaps") for name, rule in swaps.items()]
    return found


def _needs_tokens_alone(name: str) -> bool:
    """Return whether a method is of this project and needs no more than tokens and their grid."""
    pruner: Any = make_pruner(name)
    ours = type(pruner).__module__.startswith("otprune.")
    return ours and pruner.needs <= {"grid"}


def kept_shares(picture: Picture, kept: Tensor) -> dict[str, float]:
    """Return shares that are kept: of tokens of each kind, of the attended, of the attention."""
    inside = torch.isin(torch.arange(len(picture.tokens)), kept)
    kinds = {"black": 0, "paper": 1, "ink": 2}
    found = {}
    for name, kind in kinds.items():
        mine = picture.kinds == kind
        found[name] = float(inside[mine].double().mean()) if mine.any() else np.nan
    found["attended"] = float(inside[picture.attended].double().mean())
    found["attention"] = float(picture.attention[inside].sum())
    return found

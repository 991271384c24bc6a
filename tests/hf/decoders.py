"""Tiny decoders of several families, ragged prompts for them, and masking written out in loops."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.models.glm4v.configuration_glm4v import Glm4vTextConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vTextModel
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from otprune import Signals
from otprune.hf.layers import (
    ADAPTERS,
    BatchLayout,
    DecoderAdapter,
    LayerPlan,
    install_hooks,
    layer_run,
)
from otprune.hf.versions import CACHE
from otprune.pruning import ImageTokens, Pruning, Trace
from otprune.pruning.choose import budgets_of

LAYERS = 5
WORDS = 97
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": WORDS,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}


@dataclass(frozen=True)
class Family:
    """How to make a tiny decoder, and the rotary positions that it takes.

    Attributes:
        make: returns the decoder.
        axes: 1 for positions [b t]; 3 or 4 for [3 b t] and [4 b t].
    """

    make: Callable[[], Any]
    axes: int = 1


def _text(name: str, **settings: Any) -> Family:
    """A decoder of transformers by its name."""

    def make() -> Any:
        config = getattr(transformers, f"{name}Config")(**SIZES | settings)
        return getattr(transformers, f"{name}Model")(config)

    return Family(make)


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
TURNS = ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]
WINDOWS = {"sliding_window": 9, "layer_types": TURNS}
"""A window that is shorter than every prompt."""
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}

FAMILIES = {
    "llama": _text("Llama"),
    "qwen3": _text("Qwen3", head_dim=24),
    "qwen2.5-vl": Family(
        lambda: Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**SIZES, rope_parameters=SECTIONS)), 3
    ),
    "qwen2.5-vl, text positions": Family(
        lambda: Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**SIZES, rope_parameters=SECTIONS)), 4
    ),
    "glm4v": Family(
        lambda: Glm4vTextModel(
            Glm4vTextConfig(**SIZES, rope_parameters=PARTIAL | {"mrope_section": [1, 1, 2]})
        ),
        4,
    ),
    "mistral, windows": _text("Mistral", head_dim=16, sliding_window=9),
    "qwen2, windows": _text("Qwen2", use_sliding_window=True, **WINDOWS),
    "cohere": _text("Cohere", use_qk_norm=True),
    "cohere2": _text("Cohere2", **WINDOWS),
    "gemma2": _text("Gemma2", head_dim=16, query_pre_attn_scalar=24, **WINDOWS),
    "gemma3_text": _text("Gemma3Text", head_dim=16, query_pre_attn_scalar=24, **WINDOWS),
    "glm": _text("Glm", head_dim=16, rope_parameters=PARTIAL),
    "glm4": _text("Glm4", head_dim=16, rope_parameters=PARTIAL),
    "qwen2_moe": _text("Qwen2Moe", **EXPERTS, shared_expert_intermediate_size=32),
    "qwen3_moe": _text("Qwen3Moe", head_dim=24, **EXPERTS),
    "smollm3": _text("SmolLM3", no_rope_layer_interval=2, use_sliding_window=True, **WINDOWS),
}


@dataclass
class Tiny:
    """A decoder with hooks on its layers, and an output head."""

    decoder: Any
    head: nn.Linear
    adapter: DecoderAdapter

    def attend(self, implementation: str) -> "Tiny":
        # Gemma 2 has eager attention alone.
        self.decoder.set_attn_implementation(
            implementation if self.decoder._supports_sdpa else "eager"
        )
        return self


@cache
def tiny(family: str) -> Tiny:
    torch.manual_seed(0)
    decoder = FAMILIES[family].make().eval().requires_grad_(False)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim > 1 and "norm" not in name:
            parameter.mul_(6)
        else:
            # Norms of equal weights would hide that the adapter left one out.
            parameter.uniform_(0.5, 1.5)
    head = nn.Linear(SIZES["hidden_size"], WORDS, bias=False).requires_grad_(False)
    adapter = ADAPTERS[decoder.config.model_type](decoder)
    install_hooks(adapter)
    return Tiny(decoder, head, adapter)


Part = int | tuple[int, int]
"""So many text tokens, or an image of so many rows and columns."""

ROWS: list[list[Part]] = [[4, (5, 6), 5], [2, (3, 4), 1, (4, 3), 4]]


@dataclass(frozen=True)
class NoQuestion:
    """A question about which nothing is known but its hidden states."""

    hidden: Tensor | None = None

    def signal(self, name: str) -> Any:
        if name != "text_embeddings" or self.hidden is None:
            raise ValueError(f"no signal {name}")
        return self.hidden

    def inside(self, hidden: Tensor) -> "NoQuestion":
        return NoQuestion(hidden)


@dataclass
class Batch:
    """Prompts as they enter a decoder.

    Attributes:
        embeds: [b t d].
        layout: what each position is.
        images: tokens of all images.
    """

    embeds: Tensor
    layout: BatchLayout
    images: list[ImageTokens] = field(default_factory=list)

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "inputs_embeds": self.embeds,
            "attention_mask": self.layout.attention_mask.long(),
            "position_ids": self.layout.position_ids,
        }

    def alone(self, row: int) -> "Batch":
        """One prompt without padding, its images numbered from 0."""
        valid = self.layout.attention_mask[row]
        names = ("attention_mask", "image_of", "token_of", "question", "answer")
        own = {name: getattr(self.layout, name)[row : row + 1, valid] for name in names}
        is_visual = own["image_of"] >= 0
        first = own["image_of"][is_visual].min()
        own["image_of"] = torch.where(is_visual, own["image_of"] - first, -1)
        positions = self.layout.position_ids[..., row : row + 1, valid]
        layout = BatchLayout(**own, position_ids=positions, side=self.layout.side)
        return Batch(self.embeds[row : row + 1, valid], layout)


def batch_of(rows: list[list[Part]], axes: int, side: str = "left") -> Batch:
    """Prompts of random vectors, padded with zeros; under m-rope images have grid positions."""
    columns, images = [], []
    for row in rows:
        last = max(i for i, part in enumerate(row) if isinstance(part, tuple))
        parts, start, place = [], 0, 0
        for number, part in enumerate(row):
            if isinstance(part, int):
                offsets = torch.arange(part).expand(3, -1)
                image, count, step = -1, part, part
                tokens = vectors(f"text {len(images)} {number}", count)
            else:
                high, wide = part
                count, step, image = high * wide, max(part), len(images)
                along = torch.arange(count)
                offsets = torch.stack([torch.zeros_like(along), along // wide, along % wide])
                tokens = vectors(f"image {image}", count)
                images.append(ImageTokens(tokens, None, Signals(grid=part)))
            parts.append(
                {
                    "embeds": tokens,
                    "text": torch.arange(count) + place,
                    "grid": (offsets + start).T,
                    "image_of": torch.full((count,), image),
                    "token_of": torch.arange(count) if image >= 0 else torch.full((count,), -1),
                    "question": torch.full((count,), number > last),
                }
            )
            start, place = start + step, place + count
        columns.append({key: torch.cat([part[key] for part in parts]) for key in parts[0]})
    longest = max(len(row["text"]) for row in columns)

    def padded(key: str, fill: float) -> Tensor:
        found = []
        for row in columns:
            empty = row[key].new_full((longest - len(row[key]), *row[key].shape[1:]), fill)
            found.append(torch.cat([empty, row[key]] if side == "left" else [row[key], empty]))
        return torch.stack(found)

    text, grid = padded("text", 0), padded("grid", 0).permute(2, 0, 1)
    positions = {1: text, 3: grid, 4: torch.cat([text[None], grid])}[axes]
    layout = BatchLayout(
        attention_mask=padded("text", -1) >= 0,
        position_ids=positions,
        image_of=padded("image_of", -1),
        token_of=padded("token_of", -1),
        question=padded("question", 0),
        answer=torch.zeros_like(text, dtype=torch.bool),
        side=side,
    )
    return Batch(padded("embeds", 0), layout, images)


def vectors(name: str, count: int) -> Tensor:
    draw = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randn(count, SIZES["hidden_size"], generator=draw)


def plan_of(model: Tiny, batch: Batch, pruning: Pruning, trace: Trace | None = None) -> LayerPlan:
    budgets = budgets_of(pruning, batch.images, model.adapter.shape)
    ids = list(range(len(batch.images)))
    questions = [NoQuestion()] * len(batch.embeds)
    return LayerPlan(pruning, batch.layout, batch.images, ids, questions, budgets, trace)


@dataclass
class Answers:
    """Greedy answers to a batch: ids [b steps], and the logits that each was chosen by."""

    tokens: Tensor
    logits: list[Tensor]


@torch.no_grad()
def answer(model: Tiny, batch: Batch, pruning: Pruning | None, trace: Trace, steps: int) -> Answers:
    """Greedy decoding of a batch padded on the left, pruned inside the decoder."""
    plan = None if pruning is None else plan_of(model, batch, pruning, trace)
    cache = DynamicCache(config=model.decoder.config)
    arguments, tokens, logits = batch.arguments, [], []
    last = arguments["position_ids"].amax(-1, keepdim=True)
    if last.ndim == 3 and len(last) == 3:
        last = last.amax(0, keepdim=True).expand(3, -1, -1)
    elif last.ndim == 3:
        last = torch.cat([last[:1], last[1:].amax(0, keepdim=True).expand(3, -1, -1)])
    while len(tokens) < steps:
        with layer_run(model.adapter, plan, cache, arguments["inputs_embeds"].shape[1]):
            found = model.decoder(**arguments, **{CACHE: cache}, use_cache=True)
        plan = None
        logits.append(model.head(found.last_hidden_state[:, -1]))
        tokens.append(logits[-1].argmax(-1))
        mask = arguments["attention_mask"]
        arguments = {
            "inputs_embeds": model.decoder.embed_tokens(tokens[-1])[:, None],
            "attention_mask": torch.cat([mask, mask.new_ones(len(mask), 1)], 1),
            "position_ids": last + len(tokens),
        }
    return Answers(torch.stack(tokens, 1), logits)


class Masked:
    """One prompt with nothing dropped: from a layer on, its dropped tokens are hidden from others.

    Args:
        model: the decoder.
        batch: the prompt, see `Batch.alone`.
        kept: by layer, the numbers of each image's kept tokens.
        compact: whether the positions of what is kept are renumbered.
    """

    def __init__(
        self, model: Tiny, batch: Batch, kept: dict[int, list[Tensor]], compact: bool
    ) -> None:
        self.model, self.embeds = model, batch.embeds
        image_of, token_of = batch.layout.image_of[0], batch.layout.token_of[0]
        seen = torch.ones(len(image_of), dtype=torch.bool)
        positions = batch.layout.position_ids
        self.seen, self.positions = [], []
        for layer in range(LAYERS):
            for image, numbers in enumerate(kept.get(layer, [])):
                seen = seen & ~((image_of == image) & ~torch.isin(token_of, numbers))
            if layer in kept and compact:
                positions = (seen.cumsum(0) - 1).clamp(min=0)[None]
            self.seen.append(seen)
            self.positions.append(positions)

    @torch.no_grad()
    def logits(self, new: list[int]) -> Tensor:
        """Logits after the prompt and some decoded tokens, without a cache."""
        decoder = self.model.decoder
        hidden = torch.cat([self.embeds, decoder.embed_tokens(torch.tensor([new]).long())], 1)
        t = hidden.shape[1]
        kinds = getattr(decoder.config, "layer_types", None)
        if kinds is None and decoder.config.model_type == "mistral":
            kinds = ["sliding_attention"] * LAYERS
        near = torch.arange(t)[:, None] - torch.arange(t) < 9
        for number, layer in enumerate(decoder.layers):
            positions = self.positions[number]
            grid = positions[-3:] if positions.ndim == 3 else positions
            more = torch.arange(1, len(new) + 1) + grid[..., self.seen[number]].amax()
            grid = torch.cat([grid, more.expand(*grid.shape[:-1], -1)], -1)
            seen = torch.cat([self.seen[number], torch.ones(len(new), dtype=torch.bool)])
            see = torch.ones(t, t, dtype=torch.bool).tril() & seen | torch.eye(t, dtype=torch.bool)
            if kinds and kinds[number] == "sliding_attention":
                see = see & near
            bias = torch.zeros(1, 1, t, t).masked_fill(~see, torch.finfo(torch.float32).min)
            told = (kinds[number],) if decoder.config.model_type == "gemma3_text" else ()
            angles = decoder.rotary_emb(hidden, grid, *told)
            hidden = layer(hidden, attention_mask=bias, position_embeddings=angles)
        return self.model.head(decoder.norm(hidden)[0, -1])

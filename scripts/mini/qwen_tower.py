"""The vision tower of qwen-mini: Qwen3-VL's encoder that gives DINOv2's hidden states.

Both are pre-norm transformers with the same block. Three things differ. LayerScale is a factor of
each channel that the layer before it can hold. Qwen3-VL has no CLS token. And it turns queries and
keys by angles of the patch's row and column, which DINOv2 does not: a head keeps its products of
queries and keys where the angles are small, so its channels are reordered such that those which
matter most turn least. What is left of both differences is trained away: the student learns to
give the teacher's hidden states, on the training scenes.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from tower import tower_config
from transformers import Dinov2Model
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLVisionModel,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

PATCH, CHANNELS, HEADS, BLOCKS, GRID = 14, 384, 6, 9, 16
TABLE = 24
"""Rows, and columns, of the learned position table; GRID are those of an image at 224 pixels."""

DEEPSTACK = (2, 5)
"""Blocks whose outputs go into the first two layers of the language model."""

TEMPORAL = 2
"""Frames in a patch; an image is its own second frame."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STATES = (*DEEPSTACK, BLOCKS - 1)
"""Blocks whose outputs the mergers read."""


def vision_config(out: int) -> Qwen3VLVisionConfig:
    """Return the configuration of the tower with mergers to ``out`` channels."""
    return Qwen3VLVisionConfig(
        depth=BLOCKS,
        hidden_size=CHANNELS,
        hidden_act="gelu",
        intermediate_size=4 * CHANNELS,
        num_heads=HEADS,
        patch_size=PATCH,
        spatial_merge_size=1,
        temporal_patch_size=TEMPORAL,
        out_hidden_size=out,
        num_position_embeddings=TABLE**2,
        deepstack_visual_indexes=list(DEEPSTACK),
    )


def read_teacher(checkpoint: Path) -> Dinov2Model:
    """Return the tower of llava-mini, out of its checkpoint, in float32."""
    prefix = "model.vision_tower.vision_tower."
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        state = {
            name.removeprefix(prefix): file.get_tensor(name).float()
            for name in file.keys()  # noqa: SIM118  its handle is no mapping
            if name.startswith(prefix)
        }
    teacher = Dinov2Model(tower_config())
    teacher.load_state_dict(state)
    return teacher.eval().requires_grad_(False)


def pixels(pictures: np.ndarray, height: int, width: int) -> Tensor:
    """Return pictures [b 256 256 3] as pixel values of h x w patches, [b 3 14h 14w]."""
    resized = [
        np.asarray(
            Image.fromarray(one).resize((width * PATCH, height * PATCH), Image.Resampling.BICUBIC)
        )
        for one in pictures
    ]
    values = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
    return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


@torch.no_grad()
def teacher_states(teacher: Dinov2Model, values: Tensor) -> list[Tensor]:
    """Return the patches after each block, [b n 384] each."""
    states, found = teacher.embeddings(values), []
    for block in teacher.encoder.layer:
        states = block(states, attention_mask=None)
        found.append(states[:, 1:])
    return found


def _turning() -> list[tuple[int, int]]:
    """Return the pairs of channels that turn together, the slowest first; row and column in turn.

    A head has 64 channels: 16 angles of the row, 16 of the column, and the partner of each channel
    stands 32 further on.
    """
    quarter = CHANNELS // HEADS // 4
    pairs = []
    for slow in reversed(range(quarter)):
        for axis in (0, quarter):
            pairs.append((slow + axis, slow + axis + 2 * quarter))
    return pairs


def reordering(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maps of a head's queries and keys, [64 64] each, that keep all their products.

    In the new channels queries and keys have the same second moments, none across channels
    (balanced truncation's coordinates), so one that varies little adds little to any product. Those
    that vary most come where the rotary angles are smallest.

    Args:
        queries: of the teacher, [n 64].
        keys: of the teacher, [n 64]; a constant added to all of them changes no attention.
    """
    keys = keys - keys.mean(0)
    ridge = 1e-4 * torch.eye(queries.shape[1], dtype=torch.float64)

    def root(values: Tensor) -> Tensor:
        moments = values.double().T @ values.double() / len(values)
        return torch.linalg.cholesky(moments + moments.diagonal().mean() * ridge)

    q_root, k_root = root(queries), root(keys)
    left, sizes, right = torch.linalg.svd(q_root.T @ k_root)
    ask = sizes.rsqrt()[:, None] * (k_root @ right.T).T
    find = sizes.rsqrt()[:, None] * (q_root @ left).T
    places = torch.tensor([channel for pair in _turning() for channel in pair])
    order = torch.empty_like(places)
    order[places] = torch.arange(len(places))
    return ask[order].float(), find[order].float()


def _sampling(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the entries of the table that each patch reads, [n 4], and their weights, [n 4]."""
    return get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, height, width]]), num_grid_per_side=TABLE, align_corners=True
    )


def _table(teacher: Dinov2Model) -> Tensor:
    """Return the position table, [576 384], whose readings are nearest the teacher's positions.

    DINOv2 reads its table at the patches' centres, Qwen3-VL from edge to edge: the readings of
    different sizes agree best in a table fitted to several sizes at once.
    """

    def positions(side: int) -> Tensor:
        like = torch.empty(1, side**2 + 1, CHANNELS)
        return teacher.embeddings.interpolate_pos_encoding(like, side * PATCH, side * PATCH)[0, 1:]

    start, rows, wanted = positions(TABLE), [], []
    for side in (8, 12, 16, 20):
        taps, shares = _sampling(side, side)
        rows.append(torch.zeros(side**2, TABLE**2).scatter_add_(1, taps, shares))
        wanted.append(positions(side))
    read, missed = torch.cat(rows), torch.cat(wanted) - torch.cat(rows) @ start
    held = read.T @ read + 0.01 * torch.eye(TABLE**2)
    return start + torch.linalg.solve(held, read.T @ missed)


class Student(nn.Module):
    """Qwen3-VL's tower in training: LayerScale stands apart, so all weights are of one size.

    Attributes:
        tower: the tower, its mergers unused.
        gains: LayerScale after attention and after the MLP, [9 2 384].
    """

    def __init__(self, teacher: Dinov2Model, sample: Tensor, out: int) -> None:
        super().__init__()
        self.tower = Qwen3VLVisionModel._from_config(vision_config(out))
        self.gains: Tensor
        layers = teacher.encoder.layer
        gains = [[layer.layer_scale1.lambda1, layer.layer_scale2.lambda1] for layer in layers]
        self.register_buffer("gains", torch.stack([torch.stack(pair) for pair in gains]).clone())
        self._begin(teacher, sample)

    @torch.no_grad()
    def _begin(self, teacher: Dinov2Model, sample: Tensor) -> None:
        tower, embeddings = self.tower, teacher.embeddings
        patches = embeddings.patch_embeddings.projection
        tower.patch_embed.proj.weight.copy_(
            patches.weight[:, :, None].expand(-1, -1, TEMPORAL, -1, -1) / TEMPORAL
        )
        tower.patch_embed.proj.bias.copy_(patches.bias)
        states = embeddings(sample)
        tower.pos_embed.weight.copy_(_table(teacher))
        for block, layer in zip(tower.blocks, teacher.encoder.layer, strict=True):
            block.norm1.load_state_dict(layer.norm1.state_dict())
            block.norm2.load_state_dict(layer.norm2.state_dict())
            attention = layer.attention
            query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
            normed = layer.norm1(states).flatten(0, 1)
            weights, biases = [], []
            for head in torch.arange(CHANNELS).view(HEADS, -1):
                maps = reordering(query(normed)[:, head], key(normed)[:, head])
                pairs = list(zip(maps, (query, key), strict=True))
                weights.append([change @ part.weight[head] for change, part in pairs])
                biases.append([change @ part.bias[head] for change, part in pairs])
            for kind in (0, 1):
                rows = slice(kind * CHANNELS, (kind + 1) * CHANNELS)
                block.attn.qkv.weight[rows] = torch.cat([w[kind] for w in weights])
                block.attn.qkv.bias[rows] = torch.cat([b[kind] for b in biases])
            block.attn.qkv.weight[2 * CHANNELS :] = value.weight
            block.attn.qkv.bias[2 * CHANNELS :] = value.bias
            block.attn.proj.load_state_dict(attention.o_proj.state_dict())
            block.mlp.linear_fc1.load_state_dict(layer.mlp.fc1.state_dict())
            block.mlp.linear_fc2.load_state_dict(layer.mlp.fc2.state_dict())
            states = layer(states, attention_mask=None)

    def forward(self, values: Tensor) -> list[Tensor]:
        """Return the patches after each block, [b n 384] each, for pixel values [b 3 14h 14w]."""
        tower = self.tower
        batch, height, width = len(values), values.shape[2] // PATCH, values.shape[3] // PATCH
        taps, shares = _sampling(height, width)
        turns = get_vision_position_ids(torch.tensor([[1, height, width]]), 1)
        places = (tower.pos_embed(taps) * shares[:, :, None]).sum(1)
        cos, sin = tower.rotary_pos_emb(places, turns)
        weight = tower.patch_embed.proj.weight.sum(2)
        embedded = F.conv2d(values, weight, tower.patch_embed.proj.bias, stride=PATCH)
        states = embedded.flatten(2).mT + places
        found = []
        for block, gains in zip(tower.blocks, self.gains, strict=True):
            split = block.attn.qkv(block.norm1(states)).view(batch, height * width, 3, HEADS, -1)
            query, key, value = split.unbind(2)
            query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
            heads = (part.transpose(1, 2) for part in (query, key, value))
            mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            states = states + gains[0] * block.attn.proj(mixed)
            states = states + gains[1] * block.mlp(block.norm2(states))
            found.append(states)
        return found

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Return the tower's weights with LayerScale in the layers before it; no mergers."""
        state = {n: t.clone() for n, t in self.tower.state_dict().items() if "merger" not in n}
        for number, gains in enumerate(self.gains):
            for name, gain in zip(("attn.proj", "mlp.linear_fc2"), gains, strict=True):
                state[f"blocks.{number}.{name}.weight"] *= gain[:, None]
                state[f"blocks.{number}.{name}.bias"] *= gain
        return state

    @torch.no_grad()
    def round_weights(self) -> None:
        """Take the weights that ship: LayerScale folded, rounded to bfloat16."""
        rounded = {name: tensor.bfloat16() for name, tensor in self.folded().items()}
        self.tower.load_state_dict(rounded, strict=False)
        self.gains.fill_(1.0)


@dataclass(frozen=True)
class Stretch:
    """A stretch of the adaptation.

    Attributes:
        grids: rows and columns of patches, one pair drawn for each step; of a pair of zeros, any
            that make 256 patches or fewer.
        steps: optimiser steps.
        tokens: patches in a step, at most.
        first_rate: learning rate at the first step.
        last_rate: learning rate at the last step; between them it falls as a cosine.
    """

    grids: list[list[int]]
    steps: int
    tokens: int
    first_rate: float
    last_rate: float


def _grid(stretch: Stretch, rng: np.random.Generator) -> tuple[int, int]:
    height, width = stretch.grids[int(rng.integers(len(stretch.grids)))]
    if height:
        return height, width
    height = int(rng.integers(6, 25))
    return height, int(rng.integers(6, min(24, GRID**2 // height) + 1))


class Adaptation:
    """Trains the student in stretches, and goes on where it was interrupted.

    The patch embedding is the teacher's and stays so. Entries of the position table are small, so
    they learn at a twentieth of the rate.

    Args:
        teacher: llava-mini's tower.
        pictures: of the training scenes, [scenes 256 256 3] uint8.
        out: folder of the state and the log.
        channels: output channels of the mergers.
        seed: of the order of the pictures.
    """

    def __init__(
        self, teacher: Dinov2Model, pictures: Path, out: Path, channels: int, seed: int = 0
    ) -> None:
        self.teacher, self.out, self.seed = teacher, out, seed
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.train = np.load(pictures / "train.npy", mmap_mode="r")
        self.checks = np.load(pictures / "check.npy", mmap_mode="r")
        sample = pixels(self.checks[:24], GRID, GRID)
        self.student = Student(teacher, sample, channels)
        self.scales = [states.std((0, 1)) for states in teacher_states(teacher, sample)]
        tower = self.student.tower
        self.optimiser = torch.optim.AdamW(
            [{"params": list(tower.blocks.parameters()), "share": 1.0},
             {"params": list(tower.pos_embed.parameters()), "share": 0.05}],
            betas=(0.9, 0.98),
            weight_decay=0.0,
        )  # fmt: skip
        self.step, self.spent, self.started = 0, 0.0, time.perf_counter()
        with suppress(FileNotFoundError):
            state = torch.load(out / "state.pt", weights_only=True)
            self.student.load_state_dict(state["student"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.spent = state["step"], state["seconds"]

    def _errors(self, values: Tensor) -> list[Tensor]:
        """Return the mean squared error after each block, in standard deviations of the teacher."""
        with torch.autocast("cpu", torch.bfloat16):
            wanted, given = teacher_states(self.teacher, values), self.student(values)
        pairs = zip(wanted, given, self.scales, strict=True)
        return [((a.float() - b.float()) / scale).square().mean() for a, b, scale in pairs]

    def _batches(self, stretch: Stretch, first: int) -> Iterator[tuple[float, Tensor]]:
        """Yield the learning rate and the pixel values of each step that is left."""
        while self.step < first + stretch.steps:
            rng = np.random.default_rng([self.seed, self.step])
            height, width = _grid(stretch, rng)
            chosen = np.sort(rng.choice(len(self.train), stretch.tokens // (height * width), False))
            done = (self.step - first) / stretch.steps
            share = 0.5 + 0.5 * math.cos(math.pi * done)
            rate = stretch.last_rate + share * (stretch.first_rate - stretch.last_rate)
            yield rate * min(1.0, (self.step + 1) / 30), pixels(self.train[chosen], height, width)

    def run(self, stretches: list[Stretch]) -> None:
        """Train in all stretches; those that were finished are passed over."""
        if self.step == 0:
            self._report()
        first = 0
        for stretch in stretches:
            for rate, values in self._batches(stretch, first):
                errors = self._errors(values)
                loss = sum(errors[:-1], 4 * errors[-1]) / (len(errors) + 3)
                loss.backward()
                nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
                for group in self.optimiser.param_groups:
                    group["lr"] = rate * group["share"]
                self.optimiser.step()
                self.optimiser.zero_grad(set_to_none=True)
                self.step += 1
                if self.step % 25 == 0 or self.step == first + stretch.steps:
                    self._report()
                    self._save()
            first += stretch.steps

    @torch.no_grad()
    def _report(self) -> None:
        line: dict[str, object] = {
            "step": self.step,
            "minutes": round((self.spent + time.perf_counter() - self.started) / 60, 1),
        }
        for side in (8, 12, 16):
            errors = self._errors(pixels(self.checks[100:124], side, side))
            line[f"{side * PATCH} px"] = [round(float(errors[block]), 4) for block in STATES]
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.spent + time.perf_counter() - self.started,
        }
        fresh = self.out / "state.new"
        torch.save(state, fresh)
        fresh.replace(self.out / "state.pt")

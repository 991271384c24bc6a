"""qwen-mini's language model and mergers: how they begin, and how they are trained.

The language model begins as llava-mini's. Qwen3's attention normalises queries and keys in each
head, which Llama's does not, and visual tokens have a row and a column as positions; both have to
be learned.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from naming import naming_loss, placing_loss
from network import Patches
from packing import IGNORED, Packed
from qwen_tower import CHANNELS, DEEPSTACK, vision_config
from qwen_vocabulary import SPECIAL, Pieces, origins
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLConfig, Qwen3VLTextConfig, Qwen3VLTextModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchMerger

HIDDEN, LAYERS, HEADS, FFN = 128, 8, 4, 384
Reader = Callable[[Tensor, Tensor, Tensor, list[Tensor], int], Tensor]


def text_config(pieces: int) -> Qwen3VLTextConfig:
    """Return the configuration of the language model; ``pieces`` without the special tokens."""
    return Qwen3VLTextConfig(
        vocab_size=pieces + len(SPECIAL),
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        pad_token_id=pieces,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )


def model_config(pieces: int) -> Qwen3VLConfig:
    """Return the configuration of the whole model."""
    place = {name: pieces + number for number, name in enumerate(SPECIAL)}
    return Qwen3VLConfig(
        text_config=text_config(pieces).to_dict(),
        vision_config=vision_config(HIDDEN).to_dict(),
        image_token_id=place["<|image_pad|>"],
        video_token_id=place["<|video_pad|>"],
        vision_start_token_id=place["<|vision_start|>"],
        vision_end_token_id=place["<|vision_end|>"],
        tie_word_embeddings=True,
    )


class QwenLearner(nn.Module):
    """Mergers and language model, on hidden states of the frozen tower.

    Args:
        pieces: of the tokenizer, special tokens not counted.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        vision = vision_config(HIDDEN)
        self.merger = Qwen3VLVisionPatchMerger(vision)
        self.deepstack_merger_list = nn.ModuleList(
            Qwen3VLVisionPatchMerger(vision, use_postshuffle_norm=True) for _ in DEEPSTACK
        )
        self.language_model = Qwen3VLTextModel(text_config(pieces))

    @property
    def head(self) -> Tensor:
        """The output embedding, which is the input's."""
        return self.language_model.embed_tokens.weight

    def projected(self, states: Tensor) -> Tensor:
        """Return the visual tokens, [b n d], of hidden states [b n 3 384]."""
        return self.merger(states[:, :, -1].flatten(0, 1)).view(*states.shape[:2], -1)

    def deepened(self, states: Tensor) -> list[Tensor]:
        """Return what deepstack adds to the visual tokens after the first layers, [b n d] each."""
        return [
            merger(states[:, :, i].flatten(0, 1)).view(*states.shape[:2], -1)
            for i, merger in enumerate(self.deepstack_merger_list)
        ]

    def read(
        self, embeds: Tensor, positions: Tensor, mask: Tensor, deep: list[Tensor], first: int
    ) -> Tensor:
        """Return the states after the last norm, [b t d]; as the model's own forward gives them.

        Args:
            embeds: text and visual tokens, [b t d].
            positions: of m-rope, [3 b t].
            mask: what a position may look at, [b 1 t t].
            deep: from `deepened`.
            first: the column of the first visual token.
        """
        model = self.language_model
        angles = model.rotary_emb(embeds, positions)
        states, after = embeds, embeds.shape[1] - first - deep[0].shape[1]
        for number, layer in enumerate(model.layers):
            states = layer(states, position_embeddings=angles, attention_mask=mask)
            if number < len(deep):
                states = states + F.pad(deep[number], (0, 0, first, after))
        return model.norm(states)

    def compiled(self) -> Reader:
        """Return `read`, compiled; of a fixed shape, as `network.Learner.compiled`."""
        return torch.compile(self.read, dynamic=False)

    def forward(self, states: Tensor, batch: Packed) -> tuple[Tensor, Tensor]:
        """Return logits where something is taught, [a v], and the labels there, [a]."""
        return self._answered(states, self.projected(states), batch, self.read)

    def _answered(
        self, states: Tensor, visual: Tensor, batch: Packed, read: Reader
    ) -> tuple[Tensor, Tensor]:
        text, first = self.language_model.embed_tokens(batch.ids), batch.visual.start
        embeds = torch.cat([text[:, :first], visual, text[:, batch.visual.stop :]], dim=1)
        given = read(embeds, batch.positions, batch.mask, self.deepened(states), first)
        taught = batch.labels != IGNORED
        return given[taught] @ self.head.T, batch.labels[taught]

    def loss(self, states: Tensor, batch: Packed, patches: Patches, read: Reader) -> Tensor:
        """Return the mean cross-entropy of the taught tokens and of what the patches should say."""
        visual = self.projected(states)
        total = F.cross_entropy(*self._answered(states, visual, batch, read))
        total = total + patches.naming * self.named(visual, patches.words)
        if patches.placing:
            total = total + patches.placing * placing_loss(visual, patches.sides, self.head)
        return total

    def named(self, visual: Tensor, words: Tensor) -> Tensor:
        """Return the loss of naming what the patches show."""
        return naming_loss(visual, words, self.head)


@torch.no_grad()
def begin_merger(merger: Qwen3VLVisionPatchMerger, states: Tensor) -> Tensor:
    """Let a merger's norm give each channel mean 0 and deviation 1; return its output, [n 384]."""
    plain = F.layer_norm(states, (CHANNELS,), eps=1e-6)
    merger.norm.weight.copy_(1 / plain.std(0))
    merger.norm.bias.copy_(-plain.mean(0) / plain.std(0))
    return merger.norm(states)


@torch.no_grad()
def begin(
    learner: QwenLearner, checkpoint: Path, pieces: list[str], old: Pieces, states: Tensor
) -> None:
    """Let a learner begin as llava-mini.

    Args:
        learner: to set.
        checkpoint: llava-mini's folder.
        pieces: of the tokenizer.
        old: those of llava-mini.
        states: hidden states of some patches, [n 3 384].
    """
    weights = {n: t.float() for n, t in load_file(checkpoint / "model.safetensors").items()}
    first, second = (
        (weights[f"model.mm_projector.{i}.weight"], weights[f"model.mm_projector.{i}.bias"])
        for i in (0, 2)
    )
    normed = begin_merger(learner.merger, states[:, -1])
    wanted = states[:, -1] @ first[0].T + first[1]
    ones = torch.cat([normed, torch.ones(len(normed), 1)], 1).double()
    held = ones.T @ ones + 1e-3 * len(ones) * torch.eye(ones.shape[1], dtype=torch.float64)
    fitted = torch.linalg.solve(held, ones.T @ wanted.double()).float()
    units = len(first[1])
    learner.merger.linear_fc1.weight[:units] = fitted[:-1].T
    learner.merger.linear_fc1.bias[:units] = fitted[-1]
    learner.merger.linear_fc2.weight.zero_()
    learner.merger.linear_fc2.weight[:, :units] = second[0]
    learner.merger.linear_fc2.bias.copy_(second[1])
    for place, merger in enumerate(learner.deepstack_merger_list):
        begin_merger(merger, states[:, place])
        merger.linear_fc2.weight.zero_()
        merger.linear_fc2.bias.zero_()
    embedding = weights["model.embed_tokens.weight"]
    number = {name: i for i, name in enumerate(old.names)}
    for place, parts in enumerate(origins(pieces, old)):
        learner.head[place] = embedding[[number[part] for part in parts]].mean(0)
    learner.head[len(pieces) :] = 0.5 * embedding.std() * torch.randn(len(SPECIAL), HIDDEN)
    learner.head[len(pieces) + SPECIAL.index("<|im_end|>")] = embedding[number["</s>"]]
    own = learner.language_model.state_dict()
    for name in own:
        if "embed_tokens" not in name and "_norm.weight" not in name:
            own[name].copy_(weights[f"model.{name}"])

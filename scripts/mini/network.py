"""What is trained: the projector and the language model, on features of the frozen tower."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from naming import naming_loss, placing_loss
from packing import IGNORED, Packed
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

Decoder = Callable[..., Any]
HIDDEN, LAYERS, HEADS, FFN = 128, 8, 4, 384


def language_config(vocabulary: int) -> LlamaConfig:
    """Return the configuration of the language model."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.02,
        attn_implementation="sdpa",
    )


@torch.no_grad()
def look_for_the_like(attention: nn.Module, copied: float = 0.5) -> None:
    """Let an attention begin by looking for tokens like its own and adding what they hold.

    After mimetic initialisation (Trockman & Kolter, arXiv 2305.09828): each head's product of
    queries and keys is a projection, and so is that of values and output, on a part of the channels
    that no other head has. A word then finds the patches that show it from the first step, which
    takes thousands of steps with ordinary weights.
    """
    channels = attention.q_proj.weight.shape[1]
    for asks, finds, scale in (
        (attention.q_proj, attention.k_proj, 1.0),
        (attention.v_proj, attention.o_proj, copied**0.5),
    ):
        basis = torch.linalg.qr(torch.randn(channels, channels)).Q * scale
        asks.weight.copy_(basis)
        finds.weight.copy_(basis.T if finds is attention.o_proj else basis)


@dataclass(frozen=True)
class Patches:
    """What projected patches are taught to say by themselves.

    Attributes:
        words: their words, [b n 2]; see `naming.patch_words`.
        naming: weight of naming them.
        sides: pieces of left, right, top and bottom; see `naming.side_ids`.
        placing: weight of telling where they are.
    """

    words: Tensor
    naming: float
    sides: tuple[int, int, int, int]
    placing: float


class Learner(nn.Module):
    """Projector and language model.

    The tower's channels differ in size by two orders of magnitude, so the projector sees them
    standardised; `projector_weights` folds that into its first layer.

    Args:
        vocabulary: number of pieces.
        mean: mean of each channel of the features, [384].
        deviation: standard deviation of each channel, [384].
    """

    def __init__(self, vocabulary: int, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.projector = nn.Sequential(
            nn.Linear(len(mean), HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN)
        )
        self.language = LlamaForCausalLM(language_config(vocabulary))
        for layer in self.language.model.layers[1:6]:
            look_for_the_like(layer.self_attn)

    @property
    def head(self) -> Tensor:
        """The output embedding, [v d]."""
        return self.language.lm_head.weight

    def compiled(self) -> Decoder:
        """Return the decoder, compiled.

        Of a fixed shape: what is dynamic is compiled for minutes, and again and again.
        """
        return torch.compile(self.language.model, dynamic=False)

    def projected(self, features: Tensor) -> Tensor:
        """Return the visual tokens of features [b n 384], [b n d]."""
        return self.projector((features - self.mean) / self.deviation)

    def forward(self, features: Tensor, batch: Packed) -> tuple[Tensor, Tensor]:
        """Return logits where something is taught, [a v], and the labels there, [a]."""
        return self._read(self.projected(features), batch, self.language.model)

    def _read(self, visual: Tensor, batch: Packed, decoder: Decoder) -> tuple[Tensor, Tensor]:
        text = self.language.model.embed_tokens(batch.ids)
        start, stop = batch.visual.start, batch.visual.stop
        embeds = torch.cat([text[:, :start], visual, text[:, stop:]], dim=1)
        states = decoder(
            inputs_embeds=embeds,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        taught = batch.labels != IGNORED
        return self.language.lm_head(states[taught]), batch.labels[taught]

    def loss(self, features: Tensor, batch: Packed, patches: Patches, decoder: Decoder) -> Tensor:
        """Return the mean cross-entropy of the taught tokens and of what the patches should say.

        Args:
            features: [b n 384].
            batch: the lessons.
            patches: what they should say, and what that weighs.
            decoder: the language model's decoder, or its compiled twin.
        """
        visual = self.projected(features)
        total = F.cross_entropy(*self._read(visual, batch, decoder))
        total = total + patches.naming * self.named(visual, patches.words)
        if patches.placing:
            total = total + patches.placing * placing_loss(visual, patches.sides, self.head)
        return total

    def named(self, visual: Tensor, words: Tensor) -> Tensor:
        """Return the loss of naming what the patches show."""
        return naming_loss(visual, words, self.head)

    def projector_weights(self) -> dict[str, Tensor]:
        """Return the projector's weights for features as the tower gives them."""
        weights = {
            name: tensor.detach().clone() for name, tensor in self.projector.state_dict().items()
        }
        scaled = weights["0.weight"] / self.deviation
        weights["0.bias"] -= scaled @ self.mean
        weights["0.weight"] = scaled
        return weights

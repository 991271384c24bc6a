"""LLaVA-1.5-7B and Qwen2.5-VL-7B with random weights, and prompts for them.

The configurations are the published ones: times and memory do not depend on what weights mean.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

QUESTIONS = (40, 24)
"""Text tokens of the prompts in turn: prompts of a batch are padded."""


class Architecture(ABC):
    """A model of random weights.

    Attributes:
        name: of the model in tables.
        small: whether it is a small configuration of the same kind.
    """

    name: ClassVar[str]
    model_class: ClassVar[Any]

    def __init__(self, *, small: bool) -> None:
        self.small = small

    @abstractmethod
    def config(self) -> Any:
        """Return the configuration."""

    @abstractmethod
    def pixels(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the pixels of an image for each prompt, and what belongs to them."""

    @abstractmethod
    def placed(self, config: Any) -> tuple[list[int], int]:
        """Return the ids that stand for an image, and the id of a visual token."""

    def positions(self, model: Any, inputs: dict[str, Tensor]) -> Tensor | None:
        """Return the rotary positions of unpruned prompts, [3 b t], where kept tokens keep theirs.

        None where the tokens of a shortened prompt are numbered anew.
        """
        return None

    def model(self, device: str, dtype: torch.dtype, attention: str) -> Any:
        """Return the model."""
        torch.manual_seed(0)
        with torch.device(device):
            model = self.model_class._from_config(
                self.config(), dtype=dtype, attn_implementation=attention
            )
        return model.eval().requires_grad_(False)

    def request(self, model: Any, batch: int) -> dict[str, Tensor]:
        """Return prompts with an image each, padded on the left."""
        generator = torch.Generator().manual_seed(batch)
        image, visual = self.placed(model.config)
        rows = []
        for number in range(batch):
            words = QUESTIONS[number % len(QUESTIONS)]
            text = torch.randint(10, 400, (words,), generator=generator).tolist()
            rows.append([*text[:10], *image, *text[10:]])
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        made = {
            "input_ids": ids,
            "attention_mask": mask,
            **self.others(ids, visual),
            **self.pixels(batch, generator),
        }
        made["pixel_values"] = made["pixel_values"].to(model.dtype)
        return {name: value.to(model.device) for name, value in made.items()}

    def others(self, ids: Tensor, visual: int) -> dict[str, Tensor]:
        """Return what else the model is told of a prompt."""
        return {}

    def visual(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return which ids are visual tokens, [b t]."""
        return inputs["input_ids"] == self.placed(model.config)[1]


class Llava15(Architecture):
    """LLaVA-1.5-7B: 576 visual tokens an image."""

    name = "LLaVA-1.5-7B"
    model_class = LlavaForConditionalGeneration

    def config(self) -> Any:
        """Return the published configuration, or one of 64 visual tokens."""
        text: dict[str, Any] = {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "pad_token_id": 0,
        }
        vision: dict[str, Any] = {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        }
        token = 32000
        if self.small:
            text |= {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
            text |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512}
            vision |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
            vision |= {"num_attention_heads": 2, "image_size": 112, "projection_dim": 32}
            token = 500
        return LlavaConfig(
            text_config=text,
            vision_config=vision,
            image_token_index=token,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )

    def pixels(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return pixels [b 3 s s]."""
        side = 112 if self.small else 336
        return {"pixel_values": torch.randn(batch, 3, side, side, generator=generator)}

    def placed(self, config: Any) -> tuple[list[int], int]:
        """Return as many ids as the vision tower has patches."""
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        token = config.image_token_id
        return [token] * side**2, token


class Qwen25VL(Architecture):
    """Qwen2.5-VL-7B, images of 32 x 32 visual tokens."""

    name = "Qwen2.5-VL-7B"
    model_class = Qwen2_5_VLForConditionalGeneration

    @property
    def side(self) -> int:
        """Visual tokens along an image's side."""
        return 8 if self.small else 32

    def config(self) -> Any:
        """Return the published configuration, or a small one."""
        rope = {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [16, 24, 24]}
        text: dict[str, Any] = {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
        }
        vision: dict[str, Any] = {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        }
        first = 151652
        if self.small:
            text |= {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
            text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}
            text |= {"rope_parameters": rope | {"mrope_section": [4, 6, 6]}}
            text |= {"bos_token_id": 1, "eos_token_id": 2}
            vision |= {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2}
            vision |= {"out_hidden_size": 128, "fullatt_block_indexes": [1]}
            first = 500
        return Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision,
            vision_start_token_id=first,
            vision_end_token_id=first + 1,
            image_token_id=first + 3,
            video_token_id=first + 4,
            tie_word_embeddings=False,
        )

    def pixels(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return patches, four for each visual token, and the grid of each image."""
        width = 3 * 2 * 14**2
        return {
            "pixel_values": torch.randn(batch * 4 * self.side**2, width, generator=generator),
            "image_grid_thw": torch.tensor([[1, 2 * self.side, 2 * self.side]] * batch),
        }

    def placed(self, config: Any) -> tuple[list[int], int]:
        """Return the visual tokens between the two marks."""
        token = config.image_token_id
        inside = [token] * self.side**2
        return [config.vision_start_token_id, *inside, config.vision_end_token_id], token

    def others(self, ids: Tensor, visual: int) -> dict[str, Tensor]:
        """Return which ids are an image's."""
        return {"mm_token_type_ids": (ids == visual).int()}

    def positions(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return the positions along three axes, [3 b t]."""
        names = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        return model.model.get_rope_index(**{name: inputs[name] for name in names})[0]


def architectures(*, small: bool) -> tuple[Architecture, ...]:
    """Return both."""
    return Llava15(small=small), Qwen25VL(small=small)

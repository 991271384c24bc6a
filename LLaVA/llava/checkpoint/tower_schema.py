"""What is read of the JSON files of a vision tower, with bounds."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from llava.checkpoint.checked import Settings
from llava.checkpoint.schema import Heads, Layers, Positive, Share, Side, Width, known_activation


class TowerSettings(Settings):
    """``config.json`` of a vision tower, or its ``vision_config``."""

    hidden_size: Width | None = None
    intermediate_size: Width | None = None
    mlp_ratio: Annotated[int, Field(ge=1, le=64)] | None = None
    projection_dim: Width | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Heads | None = None
    num_channels: Literal[3] = 3
    image_size: Side | None = None
    patch_size: Side | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)] | None = None
    attention_dropout: Share = 0.0
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    drop_path_rate: Share = 0.0
    initializer_range: Share = 0.02
    initializer_factor: Positive = 1.0
    layerscale_value: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False
    use_mask_token: bool = True
    apply_layernorm: bool = True
    reshape_hidden_states: bool = True
    vision_use_head: bool = True

    @field_validator("hidden_act")
    @classmethod
    def _activation(cls, value: str) -> str:
        return known_activation(value)

    @model_validator(mode="after")
    def _fitting(self) -> "TowerSettings":
        channels, heads = self.hidden_size, self.num_attention_heads
        if channels is not None and heads is not None and channels % heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads {heads}, got {channels}"
            )
        if None not in (self.image_size, self.patch_size) and self.patches < 1:
            raise ValueError(
                f"patch_size must be at most image_size {self.image_size}, got {self.patch_size}"
            )
        return self

    @property
    def patches(self) -> int:
        """Patches along a side of a tile."""
        return (self.image_size or 0) // (self.patch_size or 1)


class TextTowerSettings(Settings):
    """``text_config`` of a CLIP repository."""

    vocab_size: Annotated[int, Field(ge=1, le=2**24)] = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    num_hidden_layers: Layers = 12
    num_attention_heads: Heads = 8
    max_position_embeddings: Annotated[int, Field(ge=1, le=2**16)] = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    attention_dropout: Share = 0.0
    initializer_range: Share = 0.02
    initializer_factor: Positive = 1.0
    pad_token_id: Annotated[int, Field(ge=0, le=2**24)] | None = 1
    bos_token_id: Annotated[int, Field(ge=0, le=2**24)] | None = 49406
    eos_token_id: Annotated[int, Field(ge=0, le=2**24)] | None = 49407

    @field_validator("hidden_act")
    @classmethod
    def _activation(cls, value: str) -> str:
        return known_activation(value)


Sizes = Side | dict[str, Side]


class ProcessorSettings(Settings):
    """``preprocessor_config.json`` of a vision tower."""

    do_resize: bool = True
    do_rescale: bool = True
    do_normalize: bool = True
    do_center_crop: bool = True
    size: Sizes = 224
    crop_size: Sizes | None = None
    image_mean: Annotated[list[Share], Field(min_length=3, max_length=3)] | None = None
    image_std: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    resample: Annotated[int, Field(ge=0, le=5)] = 3
    rescale_factor: Positive = 1 / 255

    @field_validator("size", "crop_size")
    @classmethod
    def _one_length(cls, value: Sizes | None) -> Sizes | None:
        if isinstance(value, dict) and set(value) != {"shortest_edge"}:
            height, width = value.get("height"), value.get("width")
            if height is None or height != width:
                raise ValueError("must be one number, a shortest_edge, or equal height and width")
        return value

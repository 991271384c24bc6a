"""What is read of a checkpoint's JSON files: one schema for each, with bounds."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from transformers.activations import ACT2FN

from llava.checkpoint.checked import Settings

Layers = Annotated[int, Field(ge=1, le=1024)]
Heads = Annotated[int, Field(ge=1, le=1024)]
Width = Annotated[int, Field(ge=1, le=2**20)]
Side = Annotated[int, Field(ge=1, le=2**14)]
Length = Annotated[int, Field(ge=1, le=2**30)]
TokenId = Annotated[int, Field(ge=0, le=2**24)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[list[Side], Field(min_length=2, max_length=2)]


def known_activation(value: str) -> str:
    """Return a name of `ACT2FN`; raise ``ValueError`` for any other."""
    if value not in ACT2FN:
        raise ValueError(f"must be one of {', '.join(sorted(ACT2FN))}")
    return value


class RopeSettings(Settings):
    """``rope_scaling`` (``type``, ``factor``, ...) or ``rope_parameters`` of transformers 5."""

    kind: Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"] = Field(
        "default", alias="rope_type"
    )
    rope_theta: Positive = 1e4
    factor: Annotated[float, Field(ge=1, le=2**16)] | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    original_max_position_embeddings: Length | None = None
    partial_rotary_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    short_factor: Annotated[list[Positive], Field(min_length=1, max_length=2**12)] | None = None
    long_factor: Annotated[list[Positive], Field(min_length=1, max_length=2**12)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_name_of_the_type(cls, given: Any) -> Any:
        if isinstance(given, dict) and "rope_type" not in given and "type" in given:
            return {**given, "rope_type": given["type"]}
        return given

    @model_validator(mode="after")
    def _complete(self) -> "RopeSettings":
        needed = {
            "linear": ("factor",),
            "dynamic": ("factor",),
            "yarn": ("factor",),
            "longrope": ("short_factor", "long_factor"),
            "llama3": (
                *("factor", "low_freq_factor", "high_freq_factor"),
                "original_max_position_embeddings",
            ),
        }.get(self.kind, ())
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"must have {', '.join(missing)} for type {self.kind}")
        low, high = self.low_freq_factor, self.high_freq_factor
        if low is not None and high is not None and low >= high:
            raise ValueError("must have a low_freq_factor below its high_freq_factor")
        return self


class ModelSettings(Settings):
    """``config.json`` of the original layout, or the language model's part of transformers' own.

    Defaults are Llama's.
    """

    vocab_size: Annotated[int, Field(ge=1, le=2**24)] = 32000
    hidden_size: Width = 4096
    intermediate_size: Width = 11008
    num_hidden_layers: Layers = 32
    num_attention_heads: Heads = 32
    num_key_value_heads: Heads | None = None
    head_dim: Annotated[int, Field(ge=2, le=2**12, multiple_of=2)] | None = None
    hidden_act: str = "silu"
    max_position_embeddings: Length = 2048
    initializer_range: Share = 0.02
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    use_cache: bool = True
    pad_token_id: TokenId | None = None
    bos_token_id: TokenId | None = 1
    eos_token_id: TokenId | Annotated[list[TokenId], Field(min_length=1, max_length=64)] | None = 2
    pretraining_tp: Layers = 1
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    attention_dropout: Share = 0.0
    mlp_bias: bool = False
    rope_theta: Positive = 1e4
    rope_scaling: RopeSettings | None = None
    rope_parameters: RopeSettings | None = None
    mm_vision_tower: str | None = None
    mm_hidden_size: Width | None = None
    mm_projector_type: str = "linear"
    mm_vision_select_layer: Annotated[int, Field(ge=-1025, le=1024)] = -2
    mm_vision_select_feature: Literal["patch", "cls_patch"] = "patch"
    mm_patch_merge_type: Literal["flat", "spatial", "spatial_unpad"] = "flat"
    mm_vision_config: dict[str, Any] | None = None
    mm_image_processor: dict[str, Any] | None = None
    mm_use_im_patch_token: bool = True
    mm_use_im_start_end: bool = False
    image_aspect_ratio: Literal["pad", "anyres", "square", "original"] | None = None
    image_grid_pinpoints: (
        Annotated[list[Pair], Field(min_length=1, max_length=4096)]
        | Annotated[str, Field(max_length=100_000)]
        | None
    ) = None
    unfreeze_mm_vision_tower: bool = False
    tokenizer_model_max_length: Length | None = None
    tokenizer_padding_side: Literal["left", "right"] = "right"
    max_sequence_length: Length = 2048

    @field_validator("hidden_act")
    @classmethod
    def _activation(cls, value: str) -> str:
        return known_activation(value)

    @field_validator("mm_projector_type")
    @classmethod
    def _projector(cls, value: str) -> str:
        depth = value.removeprefix("mlp").removesuffix("x_gelu")
        deep = value == f"mlp{depth}x_gelu" and depth in map(str, range(1, 17))
        if value not in ("linear", "identity") and not deep:
            raise ValueError("must be linear, identity or mlp<depth>x_gelu with a depth of 1 to 16")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> "ModelSettings":
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        both = {"hidden_size", "num_attention_heads"} <= self.model_fields_set
        if both and self.hidden_size % heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads {heads}, "
                f"got {self.hidden_size}"
            )
        if both and self.head_dim is None and self.hidden_size // heads % 2:
            raise ValueError(
                "hidden_size / num_attention_heads must be even for rotary positions, "
                f"got {self.hidden_size} / {heads}"
            )
        if groups is not None and heads % groups:
            raise ValueError(f"num_key_value_heads must divide num_attention_heads {heads}")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            check_token_ids(name, getattr(self, name), self.vocab_size)
        return self


class GenerationSettings(Settings):
    """``generation_config.json``, as far as it is used."""

    bos_token_id: TokenId | None = None
    eos_token_id: TokenId | Annotated[list[TokenId], Field(min_length=1, max_length=64)] | None = (
        None
    )
    do_sample: bool = False
    temperature: Annotated[float, Field(ge=0, le=1000)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**24)] | None = None

    @model_validator(mode="after")
    def _drawn(self) -> "GenerationSettings":
        if self.do_sample and 0 in (self.temperature, self.top_p):
            raise ValueError("temperature and top_p must be above 0 where do_sample is true")
        return self


class AdapterSettings(Settings):
    """``adapter_config.json`` of a LoRA adapter. What would change the merge otherwise is refused.

    ``init_lora_weights`` of the kinds that change the base's weights (PiSSA, OLoRA, LoftQ, CorDA)
    are refused, since the base here is unchanged.
    """

    peft_type: Literal["LORA"] = "LORA"
    r: Annotated[int, Field(ge=1, le=2**16)]
    lora_alpha: Annotated[float, Field(ge=-1e6, le=1e6)]
    use_rslora: bool = False
    rank_pattern: dict[str, Annotated[int, Field(ge=1, le=2**16)]] = {}
    alpha_pattern: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]] = {}
    init_lora_weights: bool | Literal["gaussian", "eva", "orthogonal"] = True
    use_dora: Literal[False] = False
    use_qalora: Literal[False] = False
    use_bdlora: Literal[False] | None = None
    fan_in_fan_out: Literal[False] = False
    lora_bias: Literal[False] = False
    bias: Literal["none"] = "none"
    layer_replication: None = None
    target_parameters: Annotated[list[str], Field(max_length=0)] = []
    trainable_token_indices: None = None
    alora_invocation_tokens: None = None


def check_token_ids(name: str, ids: int | Sequence[int] | None, vocabulary: int) -> None:
    """Raise ``ValueError`` for a token id beyond a vocabulary."""
    for number in [ids] if isinstance(ids, int) else ids or []:
        if number >= vocabulary:
            raise ValueError(f"{name} must be below vocab_size {vocabulary}, got {number}")

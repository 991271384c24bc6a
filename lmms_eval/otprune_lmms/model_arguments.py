"""The arguments of ``--model_args``, checked."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from otprune.checks import check_device_name
from otprune_lmms.environment import SettingsError, read_environment, yes_or_no
from otprune_lmms.limits import LARGEST_BATCH, MOST_WORKERS
from otprune_lmms.models import ModelSource, check_source
from otprune_lmms.pruning_arguments import ALIASES, pruning_of, without_aliases
from otprune_lmms.pruning_config import PruningConfig

_ALIASES = ALIASES | {
    "torch_dtype": "dtype",
    "conversation": "chat_template",
    "conv_template": "chat_template",
}
_WITHOUT_EFFECT = ("truncation", "truncate_context", "tie_weights", "model_name", "multimodal")
"""Arguments of lmms-eval's own wrapper that have no effect here: answers are new tokens only, the
loader ties weights, and the checkpoint's configuration says what it is."""

DEFAULT_CHECKPOINT = "liuhaotian/llava-v1.5-7b"

_DTYPES = ("auto", "float16", "bfloat16", "float32")
_AUTOMATIC = 16
"""Batch size that "auto" begins with; a batch that does not fit into memory is halved."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments of the model, checked.

    Attributes:
        pretrained: folder or hub id of a checkpoint.
        family: a name of `models.FAMILIES`; None for that of the checkpoint's configuration.
        model_base: language model below a projector-only checkpoint or a LoRA adapter.
        chat_template: name of the model's chat template; None for its usual one.
        device: "cuda", "cuda:1", "cpu"; None for the device that the launcher assigns.
        device_map: "auto" spreads the model over the GPUs.
        dtype: of the weights; "auto" is float16 on a GPU and float32 on a CPU.
        attn_implementation: eager, sdpa, flash_attention_2.
        batch_size: requests in one call of the language model.
        max_batch_size: upper bound of ``batch_size=auto``.
        seed_video: how the videos of benchmarks that have some are shown: "first_frame" or
            "all_frames".
        journal: folder of finished answers.
        workers: threads that read images ahead.
        load_4bit: 4-bit weights.
        load_8bit: 8-bit weights.
        use_cache: keep keys and values while decoding.
        revision: branch, tag or commit on the hub.
        min_pixels: smallest area that images are resized to, in families that take images of any
            size; None for that of lmms-eval's own wrapper.
        max_pixels: the largest one.
        backend: "vllm" has vLLM run the model; None runs it in this process.
        python: interpreter of the environment that has vLLM; None for that of the variable
            ``OTPRUNE_VLLM_PYTHON``, or this one.
        max_model_len: longest prompt and answer together in vLLM; None for the checkpoint's own.
        eval_time: take each answer's times by phase; not part of ``repr``, since no answer depends
            on it.
        visual_store: folder of visual tokens, see `engine.VisualFolder`; not part of ``repr``.
        visual_store_gib: GiB that it may take.
        config: the pruning config.

    Raises:
        SettingsError: an impossible value.
    """

    pretrained: str = DEFAULT_CHECKPOINT
    family: str | None = None
    model_base: str | None = None
    chat_template: str | None = None
    device: str | None = None
    device_map: str | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None
    batch_size: int = 1
    max_batch_size: int | None = None
    seed_video: Literal["first_frame", "all_frames"] = "first_frame"
    journal: str | None = None
    workers: int = 2
    load_4bit: bool = False
    load_8bit: bool = False
    use_cache: bool = True
    revision: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    backend: str | None = None
    python: str | None = None
    max_model_len: int | None = None
    eval_time: bool = field(default=False, repr=False, compare=False)
    visual_store: str | None = field(default=None, repr=False, compare=False)
    visual_store_gib: float = field(default=20.0, repr=False, compare=False)
    config: PruningConfig = PruningConfig()

    def __post_init__(self) -> None:
        """Check the values."""
        _one_of("dtype", self.dtype, _DTYPES)
        _one_of("seed_video", self.seed_video, ("first_frame", "all_frames"))
        for name in ("load_4bit", "load_8bit", "use_cache"):
            _one_of(name, getattr(self, name), (True, False))
        _within("batch_size", self.batch_size, 1, LARGEST_BATCH)
        _within("workers", self.workers, 0, MOST_WORKERS)
        if not self.pretrained:
            raise SettingsError("pretrained must name a folder or a hub id, got nothing")
        gib: object = self.visual_store_gib
        if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 < gib < float("inf"):
            raise SettingsError(f"visual_store_gib must be a number above 0, got {gib!r}")
        for name in ("model_base", "journal", "revision", "attn_implementation", "visual_store"):
            if getattr(self, name) == "":
                raise SettingsError(f"{name} must not be empty; leave it out for its default")
        try:
            if self.device is not None:
                check_device_name(self.device)
            if self.device_map not in (None, "auto"):
                check_device_name(self.device_map, "device_map, unless it is auto,")
            check_source(self.source())
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def source(self, device: str | None = None) -> ModelSource:
        """Return which model to load; ``device`` has no effect if ``device_map`` is "auto"."""
        return ModelSource(
            self.pretrained,
            family=self.family,
            model_base=self.model_base,
            chat_template=self.chat_template,
            device=device,
            device_map=self.device_map,
            dtype=None if self.dtype == "auto" else self.dtype,
            attn_implementation=self.attn_implementation,
            revision=self.revision,
            load_4bit=self.load_4bit,
            load_8bit=self.load_8bit,
            use_cache=self.use_cache,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            backend=self.backend,
            python=self._python(),
            engine=() if self.max_model_len is None else (("max_model_len", self.max_model_len),),
        )

    def _python(self) -> str | None:
        if self.backend is None or self.python is not None:
            return self.python
        return read_environment().vllm_python


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with aliases replaced; see `without_aliases`."""
    return without_aliases(given, _ALIASES)


def parse(given: Mapping[str, Any]) -> Arguments:
    """Return the arguments of ``--model_args``.

    Accepted are the fields of `Arguments` and `PruningConfig`, the method's own settings, and the
    arguments of lmms-eval's own wrapper.

    Raises:
        SettingsError: an unknown argument, an impossible value; one sentence.
    """
    left = {name: value for name, value in renamed(given).items() if value is not None}
    if left.pop("customized_config", None) is not None:
        raise SettingsError("customized_config is not supported: the checkpoint's own is read")
    if left.pop("use_flash_attention_2", False) is True:
        left.setdefault("attn_implementation", "flash_attention_2")
    for name in _WITHOUT_EFFECT:
        left.pop(name, None)
    own = {f.name for f in dataclasses.fields(Arguments)} - {"config"}
    plain = {name: left.pop(name) for name in own & left.keys()}
    plain |= _batch_size(plain)
    if "eval_time" in plain:
        plain["eval_time"] = yes_or_no(plain["eval_time"], "eval_time")
    for name in (
        "pretrained",
        "model_base",
        "chat_template",
        "device",
        "device_map",
        "attn_implementation",
        "journal",
        "revision",
        "backend",
        "python",
        "visual_store",
    ):
        if name in plain:
            plain[name] = str(plain[name])
    return Arguments(**plain, config=pruning_of(left, own))


def _batch_size(given: Mapping[str, Any]) -> dict[str, int]:
    size, most = given.get("batch_size", 1), given.get("max_batch_size")
    if most is not None:
        most = _whole("max_batch_size", most)
        _within("max_batch_size", most, 1, LARGEST_BATCH)
    # lmms-eval's auto:N is accepted; how often a batch is halved needs no number here.
    if re.fullmatch("auto(:[0-9]+)?", str(size)):
        return {"batch_size": most or _AUTOMATIC}
    return {"batch_size": _whole("batch_size", size)}


def _whole(name: str, value: Any) -> int:
    text = str(value)
    if not re.fullmatch("-?[0-9]{1,12}", text):
        raise SettingsError(f"{name} must be an integer >= 1 or auto, got {value!r}")
    return int(text)


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{name} must be one of {', '.join(map(str, known))}; got {value!r}")


def _within(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SettingsError(f"{name} must be an integer >= {least} and <= {most}, got {value!r}")

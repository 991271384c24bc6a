"""LoRA adapters, merged into the weights of their base model."""

import re
from collections.abc import Mapping

from torch import Tensor

from llava.checkpoint.checked import checked
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.schema import AdapterSettings
from llava.checkpoint.shards import Weights, read_bin, read_safetensors

ADAPTER = "adapter_config.json"

_FACTOR = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])\.(?:default\.)?weight$")

_MOST_PATTERNS, _LONGEST_PATTERN, _MOST_REPEATS = 10_000, 300, 3
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_REPEAT = re.compile(r"[*+{]")


def merged(files: CheckpointFiles, weights: Weights) -> Weights:
    """Return W + s B A for every matrix of an adapter (LoRA, arXiv 2106.09685, section 4.1).

    The scale s is alpha / r, or alpha / sqrt(r) with ``use_rslora``. A module has the rank and the
    alpha of the first entry of ``rank_pattern`` and ``alpha_pattern`` that matches its name by
    peft's rule (see `pattern_value`), else ``r`` and ``lora_alpha``. Computed in float32 and
    returned in the dtype of W.

    Raises:
        CheckpointError: settings of another kind of adapter; a weight that is no factor; factors
            that do not belong together, have another rank than the settings, or fit no weight.
    """
    settings = checked(AdapterSettings, files.json(ADAPTER) or {}, f"{ADAPTER} of {files.name}")
    ranks = _patterns(files, "rank_pattern", settings.rank_pattern)
    alphas = _patterns(files, "alpha_pattern", settings.alpha_pattern)
    changed: Weights = {}
    for module, pair in _factors(files).items():
        name = f"{module}.weight"
        if name not in weights or set(pair) != {"A", "B"}:
            raise CheckpointError(f"{files.name} lacks a factor or the base of {name}")
        rank = int(pattern_value(ranks, module, settings.r))
        _check_shapes(files, name, pair, weights[name], rank)
        alpha = pattern_value(alphas, module, settings.lora_alpha)
        scale = alpha / (rank**0.5 if settings.use_rslora else rank)
        delta = pair["B"].float() @ pair["A"].float() * scale
        changed[name] = (weights[name].float() + delta).to(weights[name].dtype)
    return changed


def pattern_value(
    patterns: Mapping[re.Pattern[str], float], module: str, otherwise: float
) -> float:
    """Return the value of the first pattern that matches a module's name, else ``otherwise``.

    As in peft, a pattern is a regular expression for the whole name or for what follows one of its
    dots: ``q_proj`` and ``1.self_attn.q_proj`` match ``model.layers.1.self_attn.q_proj``, and the
    first match in the order of the file counts, not the longest.
    """
    return next((value for one, value in patterns.items() if one.match(module)), otherwise)


def _patterns(
    files: CheckpointFiles, key: str, given: Mapping[str, float]
) -> dict[re.Pattern[str], float]:
    where = f"{ADAPTER} of {files.name}"
    if len(given) > _MOST_PATTERNS:
        raise CheckpointError(f"{where}: {key} must have at most {_MOST_PATTERNS} entries")
    found = {}
    for pattern, value in given.items():
        # Repeated groups and many repeats can take exponential time.
        slow = _REPEATED_GROUP.search(pattern) or len(_REPEAT.findall(pattern)) > _MOST_REPEATS
        if slow or len(pattern) > _LONGEST_PATTERN:
            raise CheckpointError(
                f"{where}: {key} must have patterns of at most {_LONGEST_PATTERN} characters with "
                f"{_MOST_REPEATS} repeats and no repeated group, got {pattern[:80]!r}"
            )
        try:
            found[re.compile(rf"(.*\.)?({pattern})$")] = value
        except (re.error, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{where}: {key} has {pattern[:80]!r}, which is no regular expression: {error}"
            ) from None
    return found


def _factors(files: CheckpointFiles) -> dict[str, dict[str, Tensor]]:
    factors: dict[str, dict[str, Tensor]] = {}
    path = files.find("adapter_model.safetensors")
    stored = read_safetensors(path) if path else read_bin(files.need("adapter_model.bin"))
    for name, tensor in stored.items():
        match = _FACTOR.match(name)
        if match is None:
            raise CheckpointError(f"the adapter {files.name} holds {name}, which is no LoRA factor")
        factors.setdefault(match[1], {})[match[2]] = tensor
    return factors


def _check_shapes(
    files: CheckpointFiles, name: str, pair: Mapping[str, Tensor], weight: Tensor, rank: int
) -> None:
    first, second = tuple(pair["A"].shape), tuple(pair["B"].shape)
    wanted = (rank, weight.shape[-1]), (weight.shape[0], rank)
    if weight.ndim != 2 or (first, second) != wanted:
        raise CheckpointError(
            f"{files.name} has factors of {name} of shapes {first} and {second}; by rank {rank} of "
            f"{ADAPTER} and the base's {tuple(weight.shape)} they must be {wanted[0]} and "
            f"{wanted[1]}"
        )

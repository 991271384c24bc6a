"""CLIP's text half and its projections: questions and patches in the space that they share.

LLaVA's checkpoints hold the vision half alone. The repository of the tower that they name holds
both, and the tokenizer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from llava.checkpoint.files import CheckpointError, CheckpointFiles
from llava.checkpoint.layouts import is_weight
from llava.checkpoint.shards import Weights, read_weights
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

_PATCHES = "visual_projection.weight"
_TEXTS = "text_projection.weight"


class ClipText:
    """CLIP's text encoder, float32, and the projection of its vision half.

    Not part of the model: nothing of it is in the model's state.

    Args:
        model: text half with its projection.
        tokenizer: CLIP's.
        visual_projection: weight of the projection of patches, [p c].
        device: where texts are encoded.
    """

    def __init__(
        self,
        model: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        visual_projection: Float[Tensor, "p c"],
        device: torch.device,
    ) -> None:
        self._model = model.float().eval().requires_grad_(False)
        self._model.to(device=device)  # type: ignore[call-arg]
        self._tokenizer = tokenizer
        self._projection = visual_projection.float().to(device)
        self._device = device

    @classmethod
    def load(cls, files: CheckpointFiles, device: torch.device) -> "ClipText":
        """Return the text half that a CLIP repository holds.

        Raises:
            CheckpointError: it holds none, or no tokenizer; weights that do not fit config.json.
        """
        try:
            weights = read_weights(files, _is_other_half)
        except CheckpointError as error:
            raise CheckpointError(f"{_lacks(files, 'weights')}: {error}") from None
        for name in (_PATCHES, _TEXTS):
            if name not in weights:
                raise CheckpointError(_lacks(files, name))
        projection = weights.pop(_PATCHES)
        return cls(_model(files, weights), _tokenizer(files), projection, device)

    def text(self, question: str) -> Float[Tensor, "s p"]:
        """Return a question in the shared space, one row for each segment; see `segments`.

        A segment's row is taken where CLIP itself takes it: at the end of the text, which of
        several segments only the last one has. The others follow CLIP's rule all the same, as in
        CDPruner's released code.
        """
        limit = self._model.config.max_position_embeddings
        ids, mask = segments(self._tokenizer(question, verbose=False).input_ids, limit)
        with torch.no_grad():
            output = self._model(ids.to(self._device), mask.long().to(self._device))
        return output.text_embeds

    def patches(self, tower: CLIPVisionTower, hidden: Float[Tensor, "*b c"]) -> Tensor:
        """Return hidden states of patches in the shared space, [*b p] float32.

        In CLIP's own order: the tower's last norm, then the projection, neither meant for patches.
        """
        with torch.no_grad():
            normed = tower.vision_tower.post_layernorm(hidden.to(tower.device, tower.dtype)).float()
            return normed @ self._projection.to(normed.device).T


def segments(
    ids: Sequence[int], length: int
) -> tuple[Int64[Tensor, "s length"], Bool[Tensor, "s length"]]:
    """Return a text's ids in segments, the last one filled with zeros, and which are no filling.

    Start and end of the text stand once, so later segments have no start of their own.
    """
    rows = max(1, -(-len(ids) // length))
    filled = torch.zeros(rows * length, dtype=torch.long)
    filled[: len(ids)] = torch.tensor(ids)
    mask = torch.arange(rows * length) < len(ids)
    return filled.view(rows, length), mask.view(rows, length)


def _is_other_half(name: str) -> bool:
    return is_weight(name) and name.startswith(("text_model.", _TEXTS, _PATCHES))


def _lacks(files: CheckpointFiles, what: str) -> str:
    return f"clip_text and clip_patches need CLIP's text half; {files.name} lacks {what}"


def _model(files: CheckpointFiles, weights: Weights) -> CLIPTextModelWithProjection:
    settings = (files.json("config.json") or {}).get("text_config")
    if not isinstance(settings, dict):
        raise CheckpointError(_lacks(files, "text_config in config.json"))
    known = {key: value for key, value in settings.items() if key not in ("torch_dtype", "dtype")}
    # The size of the shared space stands in config.json twice, and the two need not agree.
    config = CLIPTextConfig(**{**known, "projection_dim": len(weights[_TEXTS])})
    model = CLIPTextModelWithProjection(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"CLIP's text half in {files.name} is damaged: {reason}") from None
    return model


def _tokenizer(files: CheckpointFiles) -> CLIPTokenizer:
    """Return CLIP's byte-pair tokenizer, from its two files or from ``tokenizer.json``."""
    vocabulary, merges = files.json("vocab.json"), files.find("merges.txt")
    if vocabulary is not None and merges is not None:
        lines = merges.read_text(encoding="utf-8").split("\n")
        rules: list[Any] = [line for line in lines if line.strip()]
        rules = rules[1:] if rules and rules[0].startswith("#version") else rules
    else:
        stored = (files.json("tokenizer.json") or {}).get("model", {})
        if not {"vocab", "merges"} <= stored.keys():
            raise CheckpointError(_lacks(files, "vocab.json with merges.txt, and tokenizer.json"))
        vocabulary, rules = stored["vocab"], stored["merges"]
    pairs = [tuple(rule.split()) if isinstance(rule, str) else tuple(rule) for rule in rules]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs)  # type: ignore[arg-type]

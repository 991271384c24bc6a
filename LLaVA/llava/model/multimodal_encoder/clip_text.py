"""CLIP's text encoder and projections: questions and patches in the space that they share.

LLaVA's checkpoints hold the vision encoder alone. The repository of the tower that they name also
holds the text encoder and its tokenizer.
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
from otprune.precision import without_autocast

_PATCHES = "visual_projection.weight"
_TEXTS = "text_projection.weight"


class ClipText:
    """CLIP's text encoder, float32, and the projection of its vision encoder.

    Not a part of the model, whose state holds nothing of it.

    Args:
        model: text encoder with its projection.
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
        # transformers decorates `to` in a way that hides its signature from type checkers.
        self._model.to(device=device)  # type: ignore[call-arg]
        self._tokenizer = tokenizer
        self._projection = visual_projection.float().to(device)
        self._device = device

    @classmethod
    def load(cls, files: CheckpointFiles, device: torch.device) -> "ClipText":
        """Return the text encoder of a CLIP repository.

        Raises:
            CheckpointError: it has none, or no tokenizer; weights that do not fit config.json.
        """
        try:
            weights = read_weights(files, _is_text_or_projection)
        except CheckpointError as error:
            raise CheckpointError(f"{_lacks(files, 'weights')}: {error}") from None
        for name in (_PATCHES, _TEXTS):
            if name not in weights:
                raise CheckpointError(_lacks(files, name))
        projection = weights.pop(_PATCHES)
        return cls(_model(files, weights), _tokenizer(files), projection, device)

    def text(self, question: str) -> Float[Tensor, "s p"]:
        """Return a question in the shared space, one row for each segment; see `segments`.

        A segment's row is taken at the position that CLIP's rule gives. That is the end of the
        text, which only the last of several segments contains; the rule is applied to the others
        all the same, as in CDPruner's released code.
        """
        limit = self._model.config.max_position_embeddings
        ids, mask = segments(self._tokenizer(question, verbose=False).input_ids, limit)
        with torch.no_grad(), without_autocast():
            output = self._model(ids.to(self._device), mask.long().to(self._device))
        return output.text_embeds

    def patches(self, tower: CLIPVisionTower, hidden: Float[Tensor, "*b c"]) -> Tensor:
        """Return hidden states of patches in the shared space, [*b p] float32.

        As in CLIP, the tower's last norm is applied, then the projection; CLIP itself does so for
        the CLS token only.
        """
        with torch.no_grad(), without_autocast():
            normed = tower.vision_tower.post_layernorm(hidden.to(tower.device, tower.dtype)).float()
            return normed @ self._projection.to(normed.device).T


def segments(
    ids: Sequence[int], length: int
) -> tuple[Int64[Tensor, "s length"], Bool[Tensor, "s length"]]:
    """Return a text's ids in segments, the last one padded with zeros, and which are no padding.

    Start and end tokens occur once in the text, so later segments have no start token.
    """
    rows = max(1, -(-len(ids) // length))
    filled = torch.zeros(rows * length, dtype=torch.long)
    filled[: len(ids)] = torch.tensor(ids)
    mask = torch.arange(rows * length) < len(ids)
    return filled.view(rows, length), mask.view(rows, length)


def _is_text_or_projection(name: str) -> bool:
    return is_weight(name) and name.startswith(("text_model.", _TEXTS, _PATCHES))


def _lacks(files: CheckpointFiles, what: str) -> str:
    return f"clip_text and clip_patches need CLIP's text encoder; {files.name} lacks {what}"


def _model(files: CheckpointFiles, weights: Weights) -> CLIPTextModelWithProjection:
    settings = (files.json("config.json") or {}).get("text_config")
    if not isinstance(settings, dict):
        raise CheckpointError(_lacks(files, "text_config in config.json"))
    known = {key: value for key, value in settings.items() if key not in ("torch_dtype", "dtype")}
    # The size of the shared space is in config.json twice, and the two may differ.
    config = CLIPTextConfig(**{**known, "projection_dim": len(weights[_TEXTS])})
    model = CLIPTextModelWithProjection(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"CLIP's text encoder in {files.name} is damaged: {reason}") from None
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
    # transformers annotates strings; its tokenizer takes a dictionary and pairs as well.
    return CLIPTokenizer(vocab=vocabulary, merges=pairs)  # type: ignore[arg-type]

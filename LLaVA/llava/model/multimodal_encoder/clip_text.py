"""CLIP's text encoder and projections: questions and patches in the space that they share.

LLaVA's checkpoints hold the vision encoder alone. The repository of the tower that they name also
holds the text encoder and its tokenizer.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from llava.checkpoint.checked import checked
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.json_files import read_text
from llava.checkpoint.layouts import check_complete, check_numbers, is_weight, shapes_of
from llava.checkpoint.shards import Weights, read_weights
from llava.checkpoint.tower_schema import TextTowerSettings
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from otprune.precision import without_outer_settings

_PATCHES = "visual_projection.weight"
_TEXTS = "text_projection.weight"
_LAYER = re.compile(r"^(text_model\.encoder\.layers\.)(\d{1,9})\.")
_MARKS = ("<|startoftext|>", "<|endoftext|>")


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
        with torch.no_grad(), without_outer_settings():
            output = self._model(ids.to(self._device), mask.long().to(self._device))
        return output.text_embeds

    def patches(self, tower: CLIPVisionTower, hidden: Float[Tensor, "*b c"]) -> Tensor:
        """Return hidden states of patches in the shared space, [*b p] float32.

        As in CLIP, the tower's last norm is applied, then the projection; CLIP itself does so for
        the CLS token only.
        """
        with torch.no_grad(), without_outer_settings():
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
    where = f"config.json of {files.name}: text_config"
    known = checked(TextTowerSettings, settings, where).model_dump()
    # The size of the shared space is in config.json twice, and the two may differ.
    config = CLIPTextConfig(**known, projection_dim=len(weights[_TEXTS]))
    layers = known["num_hidden_layers"]
    try:
        check_numbers(weights, _LAYER, layers, f"{where}.num_hidden_layers", files.name)
        with torch.device("meta"):
            planned = CLIPTextModelWithProjection(config)
        check_complete(weights, shapes_of(planned.state_dict().items()), files.name)
        model = CLIPTextModelWithProjection(config)
        model.load_state_dict(weights)
    except CheckpointError as error:
        raise CheckpointError(
            f"CLIP's text encoder in {files.name} is damaged: weights missing or unfit: {error}"
        ) from None
    except (RuntimeError, ValueError, TypeError, IndexError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"CLIP's text encoder in {files.name} is damaged: {reason}") from None
    return model


def _tokenizer(files: CheckpointFiles) -> CLIPTokenizer:
    """Return CLIP's byte-pair tokenizer, from its two files or from ``tokenizer.json``."""
    vocabulary, merges = files.json("vocab.json"), files.find("merges.txt")
    if vocabulary is not None and merges is not None:
        lines = read_text(merges).split("\n")
        rules: list[Any] = [line for line in lines if line.strip()]
        rules = rules[1:] if rules and rules[0].startswith("#version") else rules
    else:
        stored = (files.json("tokenizer.json") or {}).get("model")
        if not isinstance(stored, dict) or not {"vocab", "merges"} <= stored.keys():
            raise CheckpointError(_lacks(files, "vocab.json with merges.txt, and tokenizer.json"))
        vocabulary, rules = stored["vocab"], stored["merges"]
    pairs = _checked_pairs(files, vocabulary, rules)
    # transformers annotates strings; its tokenizer takes a dictionary and pairs as well.
    return CLIPTokenizer(vocab=vocabulary, merges=pairs)  # type: ignore[arg-type]


def _checked_pairs(files: CheckpointFiles, vocabulary: Any, rules: Any) -> list[tuple[str, str]]:
    """Return merges as pairs, checked together with the vocabulary.

    Raises:
        CheckpointError: ids that are no numbers from 0 on, CLIP's two marks missing, a merge of
            pieces that the vocabulary does not have.
    """
    where = f"the tokenizer of CLIP's text encoder in {files.name}"
    whole = isinstance(vocabulary, dict) and all(type(one) is int for one in vocabulary.values())
    if not whole or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise CheckpointError(f"{where} must have the ids from 0 on, each for one piece")
    missing = [one for one in _MARKS if one not in vocabulary]
    if missing:
        raise CheckpointError(f"{where} lacks {', '.join(missing)}")
    pairs = []
    for rule in rules if isinstance(rules, list) else [rules]:
        pair = rule.split() if isinstance(rule, str) else rule
        texts = isinstance(pair, list) and all(isinstance(one, str) for one in pair)
        if not texts or len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            raise CheckpointError(
                f"{where} must merge two of its pieces into a third, got {rule!r:.80}"
            )
        pairs.append((pair[0], pair[1]))
    return pairs

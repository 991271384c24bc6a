"""Answers of qwen-mini, for `examine` and the tests: one image, encoded once, many questions."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from formats import Turn
from PIL import Image
from qwen_training import AFTER, ASKED, BEFORE
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer


class QwenReader:
    """The checkpoint in float32, its tokenizer and its image processor.

    Args:
        checkpoint: the folder.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.processor = AutoImageProcessor.from_pretrained(checkpoint)
        self.model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
        self.model.eval()

    @torch.inference_mode()
    def answers(self, image: Image.Image, turns: Sequence[Turn], most: int = 64) -> list[str]:
        """Return the greedy answers to questions about one image, each alone in its prompt."""
        pixels = self.processor([image], return_tensors="pt")
        grid = pixels["image_grid_thw"]
        visual = int(grid.prod())
        texts = [f"{BEFORE}{'<|image_pad|>' * visual}{AFTER}{t.prompt}{ASKED}" for t in turns]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True)
        ids = inputs["input_ids"]
        types = (ids == self.model.config.image_token_id).long()
        seen = self.model.model.get_image_features(pixels["pixel_values"], grid)
        rows = len(turns)
        shared = copy.copy(seen)
        shared.pooler_output = list(seen.pooler_output) * rows
        shared.deepstack_features = [list(layer) * rows for layer in seen.deepstack_features]
        out = self.model.generate(
            **inputs,
            mm_token_type_ids=types,
            image_grid_thw=grid.expand(rows, -1),
            mm_encoder_outputs={"image": shared},
            do_sample=False,
            max_new_tokens=most,
        )
        said = self.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in said]

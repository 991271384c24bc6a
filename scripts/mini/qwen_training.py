"""Training of qwen-mini's mergers and language model, in `training.Trainer`'s loop."""

from pathlib import Path

import numpy as np
import torch
from features import Features
from packing import Packed, Packer
from qwen import QwenLearner, begin
from qwen_vocabulary import SYSTEM, old_pieces
from training import Stage, Trainer
from transformers import PreTrainedTokenizerBase

BEFORE = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
AFTER, ASKED = "<|vision_end|>", "<|im_end|>\n<|im_start|>assistant\n"


class QwenPacker(Packer):
    """Turns lessons into batches in Qwen3-VL's chat format, with its m-rope positions.

    Args:
        tokenizer: the model's.
        visual: visual tokens of an image, which is a square.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, visual: int) -> None:
        self.tokenizer, self.visual = tokenizer, visual
        self.prefix, self.after = self._ids(BEFORE), self._ids(AFTER)
        side, first = int(visual**0.5), len(self.prefix)
        visual_places = np.full(visual, first)
        self.head = np.concatenate([np.arange(first), visual_places, [first + side]])
        self.start = first + side + 1
        self.grid = torch.from_numpy(np.indices((side, side)).reshape(2, 1, visual))
        self._seen: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _asked(self, prompt: str) -> list[int]:
        return self._ids(prompt + ASKED)

    def _answered(self, answer: str) -> list[int]:
        return self._ids(f"{answer}<|im_end|>")

    def pack(self, lessons, text: int | None = None) -> Packed:
        """As `Packer.pack`; the positions are [3 b t]."""
        packed = super().pack(lessons, text)
        places = packed.positions.expand(3, -1, -1).clone()
        places[1:, :, packed.visual] += self.grid
        return Packed(**{**vars(packed), "positions": places})


class QwenTrainer(Trainer):
    """Trains a `QwenLearner` that begins as llava-mini.

    Args:
        tokenizer: the model's.
        checkpoint: llava-mini's folder.
        features: folder of the hidden states.
        out: folder of the state and the log.
        seed: of new weights and of every step's questions.
        sample: folder within ``features`` of the hidden states that fit the mergers.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        checkpoint: Path,
        features: Path,
        out: Path,
        seed: int = 0,
        sample: str = "teacher",
    ) -> None:
        self.checkpoint, self.sample = checkpoint, sample
        super().__init__(tokenizer, features, out, seed, space=" ")

    def _learner(self) -> QwenLearner:
        vocabulary = self.tokenizer.get_vocab()
        names = sorted(vocabulary, key=vocabulary.__getitem__)
        pieces = names[: self.tokenizer.pad_token_id]
        learner = QwenLearner(len(pieces))
        states = Features(self.folder / self.sample / "check112.npy").rows(np.arange(200))
        old = old_pieces(self.checkpoint / "tokenizer.model")
        begin(learner, self.checkpoint, pieces, old, states.flatten(0, 1))
        return learner

    def _packer(self, table: Features, stage: Stage) -> QwenPacker:
        return QwenPacker(self.tokenizer, table.table.shape[1])

"""The tokenizer of llava-mini, trained on the sentences of its lessons.

Pieces may span several words, as long as none of them names what is in an image: a question
is a few pieces long, so the visual tokens are as large a part of the prompt as in large models.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from captions import WORDS, captions
from drawings import COLOURS, GROUNDS, KINDS
from formats import lesson
from llava.conversation import conv_templates
from questions import NUMBERS, plural
from scenes import make_scene
from sentencepiece import SentencePieceTrainer

PIECES = 1536
BORDER = "\u241f"
"""Stands where no piece may reach across, in training only."""

_NAMED = (*COLOURS, *GROUNDS, *KINDS, *map(plural, KINDS))
_COUNTED = (*WORDS, *(word.capitalize() for word in WORDS), *NUMBERS)
_SAID = ("Yes", "No", "left", "right", "above", "below", "top", "bottom", "small", "large")
CONTENT = re.compile(
    r"(\s?\b(?:[Aa]n?(?=\s(?:{named})\b)|[A-D](?=\.)|{named}|{others})\b)".format(
        named="|".join(sorted(_NAMED, key=len, reverse=True)),
        others="|".join((*_COUNTED, *_SAID)),
    )
)
"""Words that say what is in an image, and the letters of options."""


def _sentences(scenes: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for number in range(scenes):
        scene = make_scene("train", number)
        for turn in lesson(scene, rng, short=10, letters=3, captions=1, lists=1):
            # A line of a prompt follows a line break, so it does not begin with a space.
            yield from (BORDER + line for line in f"{turn.prompt} ASSISTANT:".split("\n"))
            yield f" {turn.answer}"
        yield from captions(scene)
        yield conv_templates["vicuna_v1"].system + " USER: "


def train_tokenizer(folder: Path, scenes: int = 3000) -> Path:
    """Write ``tokenizer.model`` into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    split = (CONTENT.sub(rf"{BORDER}\1{BORDER}", line) for line in _sentences(scenes) if line)
    SentencePieceTrainer.train(
        sentence_iterator=split,
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=PIECES,
        pretokenization_delimiter=BORDER,
        split_by_whitespace=False,
        split_by_number=False,
        split_by_unicode_script=False,
        max_sentencepiece_length=128,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=1,
    )
    return folder / "tokenizer.model"

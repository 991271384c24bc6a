"""MMTok: keep the tokens that cover both the question's words and the image (arXiv 2508.18264)."""

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.checks import check_positive
from otprune.greedy.coverage import coverage_picks
from otprune.greedy.covers import Cover
from otprune.kernels import reading_waits, symmetric_product, unit_rows
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.tiles import patches, row_ends
from otprune.types import PickOrder, VisualTokens

_IMAGE = "<image>"
"""The placeholder of an image in LLaVA's prompts."""

_LISTED = """
a an the
am is are was were be been being
do does did have has had
can could will would shall should may might must
what which who whom whose when where why how
i me my we us our you your he him his she her it its they them their
and or but if so than then
by for
question answer
"""
_STOP_WORDS = frozenset(_LISTED.split())
"""Words that are not covered. The list is ours, as far as recorded results of the released code do
not decide: these have "by" and "for" among the stop words, but neither "in" and "of" nor "this" and
"there", so other prepositions, which tell where things are, are covered too."""

_FORMAT_PROMPTS = (
    "Answer the question using a single word or phrase",
    "Answer with the option's letter from the given choices directly",
    "Please answer yes or no",
    "When the provided information is insufficient, respond with 'Unanswerable'",
)
"""Sentences by which benchmarks ask LLaVA for a certain form of answer."""

_FORMAT = re.compile(
    "|".join(r"\s+".join(map(re.escape, prompt.split())) + r"\.?" for prompt in _FORMAT_PROMPTS),
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")

_SHARED = {"vision_temperature": 0.2, "alpha": 0.5}


@dataclass(frozen=True, slots=True)
class MMTok(Selector):
    """Greedy maximiser of how well kept tokens cover the words of the question and all tokens.

    Source: arXiv 2508.18264 (ICLR 2026), sec. 3, and its released code. Row w of P is the softmax
    over tokens of cos(word w, token) / T_t, divided by the number of words; row i of Q the softmax
    over tokens of cos(feature i, feature j) / T_v, divided by the number of tokens. Tokens are as
    projected, words the language model's embeddings, features the projector's input. The value of a
    set is the sum over the rows of [P; αQ] of the row's largest entry in the set: monotone and
    submodular, so greedy reaches at least (1 - 1/e) of the best. Ties go to the lower position.

    Words are those of the question that are neither stop words nor part of a sentence about the
    form of the answer (see `coverage_words`); each is tokenised alone. The stop words are ours: the
    code's can be inferred from its results only in part.

    - Padding: tokens that `Signals.padding` marks are rows to cover, but picked only when no others
      are left; without that signal there are none. The code excludes them by default for models
      named LLaVA-1.5 alone (presets "llava-1.6" and "qwen" include them), and where too few others
      are left it returns tokens twice.
    - A question without a word: P has no rows, and the picks cover the image alone. The code fails.
    - ``<image>`` is removed anywhere in the question; in the code only at the very start, elsewhere
      it becomes the word "image".
    - All tiles of an image are one set of tokens. Newline tokens are not covered and come last.

    Cost O(n²c / 2 + nmd) for n tokens and m word pieces, then at most O(n(m + n)) a pick (only rows
    whose largest entry changed are summed again, see `otprune.greedy.coverage`). Memory
    O(n(m + n)), on a GPU for each image of a batch.

    Attributes:
        text_temperature: T_t, 0.02; the code has 0.01 for Qwen.
        vision_temperature: T_v.
        alpha: α, weight of the image's rows against those of the words.
        exclude_padding: whether tokens that show padding only are picked after all others.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"question", "embed_words", "features"})
    presets: ClassVar = {
        "llava": {**_SHARED, "text_temperature": 0.02, "exclude_padding": True},
        "llava-1.6": {**_SHARED, "text_temperature": 0.02, "exclude_padding": False},
        "qwen": {**_SHARED, "text_temperature": 0.01, "exclude_padding": False},
    }

    text_temperature: float = 0.02
    vision_temperature: float = 0.2
    alpha: float = 0.5
    exclude_padding: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("text_temperature", self.text_temperature)
        check_positive("vision_temperature", self.vision_temperature)
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not number or not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be a finite number >= 0, got {self.alpha!r}")
        if not isinstance(self.exclude_padding, bool):
            raise ValueError(f"exclude_padding must be true or false, got {self.exclude_padding!r}")

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        if not reading_waits(tokens[0]):
            # One after another holds the memory of one.
            return super(MMTok, self)._rank_images(tokens, k, signals)
        return self._together(tokens, k, signals)

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        return self._together([tokens], [k], [signals])[0]

    def _together(self, tokens: list[Tensor], k: list[int], signals: list[Signals]) -> list[Tensor]:
        images = list(zip(tokens, k, signals, strict=True))
        among = [patches(one, len(image)).to(image.device) for image, _, one in images]
        covers = [self._cover(*one, places) for one, places in zip(images, among, strict=True)]
        return [
            torch.cat([places[picks], row_ends(one).to(places.device)])[:count]
            for (_, count, one), places, picks in zip(
                images, among, coverage_picks(covers), strict=True
            )
        ]

    def _cover(self, tokens: Tensor, k: int, signals: Signals, among: Tensor) -> Cover:
        """Return what is to be covered by the tokens at some places."""
        words = _word_embeddings(signals, tokens)
        rows = self.coverage(words, tokens[among], signals.given("features")[among])
        padding = signals.padding if self.exclude_padding else None
        last = None if padding is None else padding.to(among.device)[among].nonzero()[:, 0]
        return Cover(rows, min(k, len(among)), last)

    def coverage(
        self,
        words: Float[Tensor, "m d"],
        tokens: Float[Tensor, "n d"],
        features: Float[Tensor, "n c"],
    ) -> Float[Tensor, "rows n"]:
        """Return [P; αQ], float32; Q alone where there are no words."""
        n = len(tokens)
        units = unit_rows(features.float())
        text = unit_rows(words.float()) @ unit_rows(tokens.float()).T
        image = symmetric_product(units, units)
        return torch.cat(
            [
                torch.softmax(text / self.text_temperature, 1) / max(len(words), 1),
                torch.softmax(image / self.vision_temperature, 1) * (self.alpha / max(n, 1)),
            ]
        )


def _word_embeddings(signals: Signals, tokens: Tensor) -> Float[Tensor, "m d"]:
    """Return the embeddings of the words to cover; of no row where the question has no word."""
    words = coverage_words((signals.question or "").replace(_IMAGE, " "))
    if not words or signals.embed_words is None:
        return tokens.new_empty(0, tokens.shape[1])
    vectors = signals.embed_words(words)
    if vectors.ndim != 2 or vectors.shape[1] != tokens.shape[1]:
        raise ValueError(
            f"signals.embed_words must give vectors [m {tokens.shape[1]}], as long as the tokens, "
            f"got shape {tuple(vectors.shape)}"
        )
    return vectors.to(tokens.device)


def coverage_words(question: str) -> list[str]:
    """Return the words of a question that are to be covered, in order, as they are written.

    Sentences about the form of the answer and stop words are left out; a word is a run of letters,
    digits and underscores. If no word is left, all words of the question are returned, with their
    punctuation: without the sentences about the form, or with them if there are no others. Empty
    for a question without a word.
    """
    without_format = _FORMAT.sub(" ", question)
    words = [word for word in _WORD.findall(without_format) if word.lower() not in _STOP_WORDS]
    return words or without_format.split() or question.split()

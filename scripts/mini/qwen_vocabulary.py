"""The tokenizer of qwen-mini: llava-mini's pieces as a tokenizer.json, and a few more.

Qwen's chat format has no dummy prefix, so an answer begins without a space, and its fixed parts are
other ones than LLaVA's. The byte-pair merges of llava-mini are therefore continued on lessons in
the new format; old pieces keep their ids.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from captions import captions
from drawings import COLOURS, GROUNDS, KINDS
from formats import lesson
from scenes import make_scene
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from vocabulary import BORDER, CONTENT

SPACE = "\u2581"
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
SYSTEM = "You are a helpful assistant."
_ASSISTANT = f"{SPACE}ASSISTANT:"
_ANSWERS = ("left", "right", "top", "bottom", "above", "below", "small", "large", "Yes", "No",
            *"0123456", "Two", "Three")  # fmt: skip
TEMPLATE = Path(__file__).with_name("qwen_chat_template.jinja")


@dataclass(frozen=True)
class Pieces:
    """A vocabulary of byte-pair encoding: its pieces in the order of their ids, and its merges."""

    names: list[str]
    merges: list[tuple[str, str]]


def old_pieces(file: Path) -> Pieces:
    """Return the pieces and merges of a sentencepiece model; a merge's rank is its piece's."""
    model = SentencePieceProcessor(model_file=str(file))
    names = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    known = set(names)
    ranked = []
    for number, name in enumerate(names):
        if not model.is_byte(number) and not model.is_control(number):
            for cut in range(1, len(name)):
                if name[:cut] in known and name[cut:] in known:
                    ranked.append((-model.get_score(number), (name[:cut], name[cut:])))
    ranked.sort(key=lambda merge: merge[0])
    return Pieces(names, [pair for _, pair in ranked])


def encoder(pieces: Pieces) -> Tokenizer:
    """Return the tokenizer of some pieces, without special tokens."""
    numbers = {name: i for i, name in enumerate(pieces.names)}
    model = models.BPE(numbers, pieces.merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def _segments(scenes: int) -> Iterator[str]:
    """Yield texts that no new piece reaches across."""
    rng = np.random.default_rng(0)
    for number in range(scenes):
        scene = make_scene("train", number)
        lines = [f"system\n{SYSTEM}", "user\n", "assistant\n"]
        for turn in lesson(scene, rng, short=10, letters=3, captions=1, lists=1):
            for text in (*turn.prompt.split("\n"), turn.answer, *captions(scene)):
                lines += CONTENT.sub(rf"{BORDER}\1{BORDER}", text).split(BORDER)
        yield from filter(None, lines)
    for word in (*COLOURS, *KINDS, *GROUNDS):
        yield from [word] * scenes


def _joined(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def continued(old: Pieces, scenes: int = 800) -> Pieces:
    """Return the pieces after more merges, the most frequent pair first, until none is left."""
    line = "\n"
    names, merges = [*old.names, line], list(old.merges)
    tokenizer = encoder(Pieces(names, merges))
    counts: Counter[tuple[str, ...]] = Counter()
    for text, count in Counter(_segments(scenes)).items():
        counts[tuple(tokenizer.encode(text).tokens)] += count
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, count in counts.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += count
        if not pairs:
            return Pieces(names, merges)
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        if "".join(best) not in names:
            names.append("".join(best))
        joined: Counter[tuple[str, ...]] = Counter()
        for pieces, count in counts.items():
            joined[_joined(pieces, best)] += count
        counts = joined


def write_tokenizer(old: Path, folder: Path) -> Tokenizer:
    """Write tokenizer.json, tokenizer_config.json and the chat template into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = encoder(continued(old_pieces(old)))
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "add_prefix_space": False,
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text())
    return tokenizer


def origins(names: list[str], old: Pieces) -> list[list[str]]:
    """Return, for each piece, the old pieces whose embeddings' mean it begins with.

    A word without its space is that word; what stood before the answer in LLaVA's format becomes
    what stands before it in Qwen's. A letter is named both by an option and by an answer.
    """
    known, tokenizer = set(old.names), encoder(old)
    answers = {*COLOURS, *KINDS, *GROUNDS, *_ANSWERS}

    def begins(name: str) -> list[str]:
        if name == "assistant\n":
            return [f".{_ASSISTANT}"]
        if name in "ABCD":
            return [name, SPACE + name]
        if name in answers:
            return [SPACE + name]
        if name in known:
            return [name]
        if name + _ASSISTANT in known:
            return [name + _ASSISTANT]
        return tokenizer.encode(name.replace(SPACE, " ")).tokens

    return [begins(name) for name in names]

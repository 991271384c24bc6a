"""A trained image-to-LaTeX model of PyPI, and reading its visual tokens after some were dropped.

The package (latex-ocr-junia 0.1.3, weights in its wheel, no licence stated) is installed when the
study runs, into a folder of its own, and only if its file has the digest below. Its encoder turns
an image of 128 x 512 pixels into 1024 tokens of 256 channels; its decoder attends to them in each
of four layers. Positions are added before the encoder, so a token says where it was, and dropping
tokens before the decoder's cross-attention changes nothing about the others.
"""

import importlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as in torch's documentation
from PIL import Image
from torch import Tensor, nn

PACKAGE, VERSION = "latex-ocr-junia", "0.1.3"
SHA256 = "0fd0b4069a9d9af48c9416a729bba97de3776ae99b53090aaff99ca598b80cda"

PATCH = 8
"""Pixels of a patch's side: one token each."""

INK = 200
"""Grey at or below which a pixel of the paper is ink."""

LOOP, PERIOD = 32, 8
"""A reading ends when its last so many characters repeat with at most such a period."""


def install(folder: Path) -> None:
    """Install the package into the folder, unless it is there; needs the network once.

    Raises:
        CalledProcessError: pip failed, for one because the digest is another.
    """
    if (folder / "latex_ocr_junia" / "assets" / "best.pt").exists():
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
        wanted.flush()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--target", str(folder), "-r", wanted.name], check=True)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What decoding needs to know of the tokenizer.

    Attributes:
        texts: text of each token; "" for those that are never shown.
        start: the token that opens every text.
        end: the token that closes it.
        never: tokens that are never chosen.
    """

    texts: list[str]
    start: int
    end: int
    never: tuple[int, ...]

    def text(self, tokens: list[int]) -> str:
        """Return the text of tokens up to the end token."""
        shown = tokens[: tokens.index(self.end)] if self.end in tokens else tokens
        return "".join(self.texts[token] for token in shown)


@dataclass(frozen=True, slots=True)
class Reader:
    """The model with its tokenizer.

    Attributes:
        model: with ``encode``, and the decoder's parts by the package's names.
        vocabulary: of its output, single characters.
        height: of the images that it takes, in pixels.
        width: likewise.
    """

    model: Any
    vocabulary: Vocabulary
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.height // PATCH, self.width // PATCH

    @torch.no_grad()
    def encode(self, canvases: list[Image.Image]) -> Tensor:
        """Return the visual tokens of images of the model's size, [b n d] float32."""
        pixels = np.stack([np.asarray(canvas, dtype=np.float32) for canvas in canvases])
        return self.model.encode(torch.from_numpy(pixels / 255.0)[:, None])

    @torch.no_grad()
    def read(self, tokens: Tensor, longest: int) -> list[str]:
        """Return the text that each image's tokens [b k d] are read as, greedily.

        The same as the package's own loop (a test compares them), without computing keys and
        values of the visual tokens and of earlier characters again at each step. A reading that
        has begun to repeat itself ends, see `LOOP`: it would go on to the last character.

        Args:
            tokens: what is left of each image's visual tokens.
            longest: characters after which a text ends.
        """
        model, words = self.model, self.vocabulary
        blocks = list(model.decoder_blocks)
        seen = [_keys_values(block.cross_attn, tokens) for block in blocks]
        past: list[tuple[Tensor, Tensor] | None] = [None for _ in blocks]
        texts: list[list[int]] = [[] for _ in tokens]
        # Numbers of the images that are not finished, in the order of the rows.
        rows = list(range(len(tokens)))
        last = torch.full((len(tokens), 1), words.start)
        for place in range(longest):
            embed = model.decoder_embed
            states = embed.norm(embed.token_emb(last) + embed.pos_emb.weight[place])
            for i, block in enumerate(blocks):
                states, past[i] = _step(block, states, past[i], seen[i])
            scores = model.lm_head(model.decoder_norm(states))[:, -1].float()
            scores[:, list(words.never)] = -1e9
            chosen = scores.argmax(1)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                texts[row].append(token)
            looping = torch.tensor([repeats(texts[row]) for row in rows])
            going = ((chosen != words.end) & ~looping).nonzero()[:, 0]
            if len(going) < len(rows):
                rows = [rows[i] for i in going.tolist()]
                if not rows:
                    break
                seen = [(keys[going], values[going]) for keys, values in seen]
                past = [(pair[0][going], pair[1][going]) for pair in past if pair is not None]
            last = chosen[going][:, None]
        return [words.text(text) for text in texts]

    @torch.no_grad()
    def attention(self, tokens: Tensor, text: str) -> Tensor:
        """Return the share of the decoder's attention that each visual token receives, [n].

        Mean over layers, heads and the characters of a text, which the decoder is given.

        Args:
            tokens: all visual tokens of one image, [n d].
            text: what was read.
        """
        model, words = self.model, self.vocabulary
        numbers = {shown: i for i, shown in reversed(list(enumerate(words.texts))) if shown}
        given = torch.tensor([[words.start, *(numbers[character] for character in text)]])
        embed = model.decoder_embed
        places = embed.pos_emb.weight[: given.shape[1]]
        states = embed.norm(embed.token_emb(given) + places)
        later = torch.ones(given.shape[1], given.shape[1], dtype=torch.bool).triu(1)
        received = []
        for block in model.decoder_blocks:
            normed = block.self_norm(states)
            states = states + block.self_attn(normed, normed, normed, attn_mask=later)[0]
            seen = tokens[None]
            mixed, shares = block.cross_attn(block.cross_norm(states), seen, seen)
            received.append(shares.mean((0, 1)))
            states = states + mixed
            states = states + block.ffn(block.ffn_norm(states))
        return torch.stack(received).mean(0)


def repeats(text: list[int]) -> bool:
    """Return whether the last `LOOP` tokens are one short piece again and again."""
    end = text[-LOOP:]
    return len(end) == LOOP and any(end[p:] == end[:-p] for p in range(1, PERIOD + 1))


def load_reader(folder: Path) -> Reader:
    """Return the model of the package in the folder, see `install`."""
    sys.path.insert(0, str(folder))
    try:
        package = {
            name: importlib.import_module(f"latex_ocr_junia.{name}")
            for name in ("model", "tokenizer", "utils")
        }
    finally:
        sys.path.remove(str(folder))
    assets = folder / "latex_ocr_junia" / "assets"
    config = package["utils"].load_model_config(assets / "model_config.json")
    words = package["tokenizer"].LatexTokenizer.load(assets / "tokenizer.json")
    model = package["model"].build_model(config).eval()
    stored = torch.load(assets / "best.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(stored["model_state_dict"])
    special = {words.pad_id, words.bos_id, words.eos_id, words.unk_id}
    texts = ["" if i in special else words.id_to_token[i] for i in range(len(words.id_to_token))]
    vocabulary = Vocabulary(texts, words.bos_id, words.eos_id, (words.pad_id, words.bos_id))
    return Reader(model, vocabulary, config.image_height, config.image_width)


def fit(image: Image.Image, height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """Return an image scaled to fit, centred on black, as the model was trained; and its patches.

    Returns:
        The canvas, greyscale, and the kind of each patch in raster order: 0 for the black around
        the paper, 1 for blank paper, 2 for paper with ink on it. Where a patch is part paper and
        part black, it counts as paper.
    """
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    corner = ((width - size[0]) // 2, (height - size[1]) // 2)
    scaled = image.resize(size, resample=Image.Resampling.BILINEAR)
    canvas = Image.new("L", (width, height), color=0)
    canvas.paste(scaled, corner)
    paper = np.zeros((height, width), dtype=bool)
    paper[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]] = True
    ink = paper & (np.asarray(canvas) <= INK)
    kinds = np.where(_any_in_patch(paper), 1, 0)
    kinds[_any_in_patch(ink)] = 2
    return canvas, kinds


def _any_in_patch(pixels: np.ndarray) -> np.ndarray:
    """Return for each patch whether a pixel in it is set, in raster order."""
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    return pixels.reshape(rows, PATCH, columns, PATCH).any(axis=(1, 3)).ravel()


def _split(states: Tensor, heads: int) -> Tensor:
    """Return [b t d] as [b heads t d / heads]."""
    return states.unflatten(2, (heads, -1)).transpose(1, 2)


def _keys_values(attention: nn.MultiheadAttention, states: Tensor) -> tuple[Tensor, Tensor]:
    width = attention.embed_dim
    weight, bias = attention.in_proj_weight[width:], attention.in_proj_bias[width:]
    keys, values = F.linear(states, weight, bias).chunk(2, dim=2)
    return _split(keys, attention.num_heads), _split(values, attention.num_heads)


def _attend(
    attention: nn.MultiheadAttention, states: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    width = attention.embed_dim
    queries = F.linear(states, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
    mixed = F.scaled_dot_product_attention(_split(queries, attention.num_heads), keys, values)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _step(
    block: Any, states: Tensor, past: tuple[Tensor, Tensor] | None, seen: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return a decoder block's output for one more character [b 1 d], and its keys and values."""
    normed = block.self_norm(states)
    keys, values = _keys_values(block.self_attn, normed)
    if past is not None:
        keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
    states = states + _attend(block.self_attn, normed, keys, values)
    states = states + _attend(block.cross_attn, block.cross_norm(states), *seen)
    return states + block.ffn(block.ffn_norm(states)), (keys, values)

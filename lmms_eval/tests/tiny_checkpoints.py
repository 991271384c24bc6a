"""Checkpoints of tiny random vision-language models, complete as published ones are.

A folder has the weights of `tiny_vlms`, a tokenizer with the family's special tokens, a chat
template and the configurations of its processors. They are written without torchvision, which
`AutoProcessor` wants for families that take videos; `AutoTokenizer`, `AutoImageProcessor` and
`AutoModelForImageTextToText` do without.
"""

import json
from itertools import product
from pathlib import Path
from string import ascii_letters, ascii_lowercase

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiny_layouts import LAYOUTS, Layout, Settings
from tiny_vlms import TEXT, made

FAMILIES = tuple(LAYOUTS)
"""Families that have a checkpoint."""


def write_checkpoint(folder: Path, family: str) -> None:
    """Write a family's checkpoint, the same bytes at each call.

    Args:
        folder: is made where it is missing.
        family: a name of `FAMILIES`.
    """
    layout = LAYOUTS[family]()
    folder.mkdir(parents=True, exist_ok=True)
    made(family)[0].save_pretrained(folder)
    _tokenizer(layout).save_pretrained(folder)
    name, pixels = layout.image_processor
    processor, settings = layout.processor
    _write(folder / "processor_config.json", {"processor_class": processor, **settings})
    shared = {"processor_class": processor}
    _write(folder / "preprocessor_config.json", {"image_processor_type": name, **pixels, **shared})
    if layout.video_processor is not None:
        name, frames = layout.video_processor
        frames = {"video_processor_type": name, **frames, **shared}
        _write(folder / "video_preprocessor_config.json", frames)


def _write(file: Path, content: Settings) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


def _tokenizer(layout: Layout) -> PreTrainedTokenizerFast:
    """Return a tokenizer of ASCII and pairs of letters, with the family's special tokens.

    Any tokens of it are a text that can be told from that of others.
    """
    special = dict(layout.special)
    space, newline = "\u0120", "\u010a"  # as a byte-level tokenizer writes them
    characters = [space, newline, *map(chr, range(33, 127))]
    pairs = [*product(space, ascii_letters), *product(ascii_lowercase, repeat=2)]
    tokens = iter([*characters, *map("".join, pairs)])
    names = [special.get(number) or next(tokens) for number in range(TEXT["vocab_size"])]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [pair for pair in pairs if "".join(pair) in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
        extra_special_tokens=dict(layout.names),
        chat_template=_template(layout),
        padding_side="left",
        model_max_length=TEXT["max_position_embeddings"],
    )
    others = [token for number, token in sorted(special.items()) if number > 2]
    fast.add_special_tokens({"additional_special_tokens": others})
    return fast


def _template(layout: Layout) -> str:
    before, after = layout.turn
    end = before.replace("m['role']", "'assistant'")
    return (
        "{% for m in messages %}" + before + "{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        + layout.image
        + "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
        + after
        + "{% endfor %}{% if add_generation_prompt %}"
        + end
        + "{% endif %}"
    )

"""LLaMA's tokenizer in the form that transformers reads anywhere: a ``tokenizer.json``."""

from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

_SPACE = "\u2581"
"""sentencepiece writes a space as this character."""

_BEGIN, _END, _UNKNOWN = "<s>", "</s>", "<unk>"


def fast_tokenizer(model_file: str | Path, image_token: str, **settings: Any) -> Any:
    """Return a sentencepiece BPE tokenizer with a token more, for images, behind its pieces.

    Each text between special tokens gets the dummy prefix, as between images in
    `llava.mm_utils.tokenizer_image_token`, so a question's prompt has the ids that LLaVA gives it.
    LLaVA gives none after a ``</s>`` inside a text: there, at later turns, a piece differs.

    Args:
        model_file: the ``tokenizer.model``.
        image_token: text of the token for images.
        **settings: of the tokenizer of transformers, as ``model_max_length``.

    Raises:
        OSError: the file cannot be read.
    """
    pieces = SentencePieceProcessor(model_file=str(model_file))
    names = [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]
    known = set(names)
    ranked = []
    for number, name in enumerate(names):
        if pieces.is_byte(number) or pieces.is_control(number) or pieces.is_unknown(number):
            continue
        for cut in range(1, len(name)):
            if name[:cut] in known and name[cut:] in known:
                # A merge comes as early as the piece that it makes.
                ranked.append((-pieces.get_score(number), (name[:cut], name[cut:])))
    ranked.sort(key=lambda merge: merge[0])
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [pair for _, pair in ranked]
    tokenizer: Any = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=_UNKNOWN, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [_UNKNOWN, _BEGIN, _END, image_token]
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A", special_tokens=[(_BEGIN, vocabulary[_BEGIN])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BEGIN,
        eos_token=_END,
        unk_token=_UNKNOWN,
        pad_token=_UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": image_token},
        **settings,
    )

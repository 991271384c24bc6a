"""LLaMA's tokenizer, read from ``tokenizer.model``.

transformers 5 reads such a folder either through a generic backend that silently gives other ids
(`AutoTokenizer` on LLaVA's model type) or through sentencepiece's generated protobuf code. Here
sentencepiece's own C++ reader is used, so the ids are those of the slow tokenizer that LLaVA was
trained and published with (``LlamaTokenizer``, ``legacy=False``).
"""

from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizer

from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.json_files import refuse_pointer

_SPACE = "\u2581"
"""sentencepiece writes a space as this character."""

_NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}

_SENTINEL = "\ue000"
"""A private-use character that is in no piece: text after it is encoded without a dummy prefix."""


class LlavaTokenizer(PreTrainedTokenizer):
    """Sentencepiece pieces as transformers tokens; ``<s>`` in front, padding on the left.

    sentencepiece's dummy prefix (a space) is added at the start of a text only, not after a special
    token inside it. Consecutive spaces are kept.

    Args:
        model_file: the ``tokenizer.model``.
        model_max_length: an attribute for its users; nothing is cut here.
        **kwargs: as `PreTrainedTokenizer`; ``added_tokens_decoder`` has tokens beside the pieces.

    Raises:
        CheckpointError: the file is missing, unreadable, or lacks ``<unk>``, ``<s>`` or ``</s>``.
    """

    vocab_files_names = {"model_file": "tokenizer.model"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, model_file: str | Path, model_max_length: int = 2048, **kwargs: Any) -> None:
        self.model_file = str(model_file)
        self._pieces = _read(Path(model_file))
        self._sentinel = self._pieces.encode(_SENTINEL, out_type=str)
        names = _NAMES
        settings = {
            **names,
            "pad_token": "<unk>",
            "padding_side": "left",
            "special_tokens_pattern": "bos",
            "clean_up_tokenization_spaces": False,
            **kwargs,
        }
        super().__init__(model_max_length=model_max_length, **settings)

    @property
    def vocab_size(self) -> int:
        """Number of pieces in the model file, added tokens not counted."""
        return self._pieces.get_piece_size()

    def get_vocab(self) -> dict[str, int]:
        """Return every token and its id."""
        vocabulary = {self._pieces.id_to_piece(i): i for i in range(self.vocab_size)}
        return {**vocabulary, **self._added_tokens_encoder}

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Return the pieces of a text; special tokens written in it are recognised."""
        pieces: list[str] = []
        at_start = True
        for chunk in self._chunks(text):
            if chunk in self._added_tokens_encoder:
                pieces.append(chunk)
            elif at_start:
                pieces += self._pieces.encode(chunk, out_type=str)
            else:
                pieces += self._pieces.encode(_SENTINEL + chunk, out_type=str)[
                    len(self._sentinel) :
                ]
            at_start = False
        return pieces

    def _chunks(self, text: str) -> list[str]:
        """Return a text cut at added tokens, without the spaces that these take with them."""
        chunks = [one for one in self.tokens_trie.split(text.replace(_SPACE, " ")) if one]
        for place, chunk in enumerate(chunks):
            number = self._added_tokens_encoder.get(chunk)
            if number is None:
                continue
            token = self._added_tokens_decoder[number]
            if token.lstrip and place > 0 and chunks[place - 1] not in self._added_tokens_encoder:
                chunks[place - 1] = chunks[place - 1].rstrip()
            last = place + 1 == len(chunks)
            if token.rstrip and not last and chunks[place + 1] not in self._added_tokens_encoder:
                chunks[place + 1] = chunks[place + 1].lstrip()
        return [one for one in chunks if one]

    def piece(self, number: int) -> str:
        """Return the piece of an id in the model file."""
        return self._pieces.id_to_piece(number)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of pieces; the dummy prefix is removed, bytes are joined."""
        text, run = "", [] if tokens and tokens[0].startswith(_SPACE) else [_SPACE]
        for token in tokens:
            if token in self._added_tokens_encoder:
                text += self._pieces.decode(run) + token
                # sentencepiece removes a leading space; only that of the whole text may go.
                run = [_SPACE]
            else:
                run.append(token)
        return text + self._pieces.decode(run)

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write ``tokenizer.model`` into a folder; return its path."""
        name = (f"{filename_prefix}-" if filename_prefix else "") + "tokenizer.model"
        path = Path(save_directory) / name
        path.write_bytes(self._pieces.serialized_model_proto())
        return (str(path),)

    def _convert_token_to_id(self, token: str) -> int:
        return self._pieces.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        # Embeddings may have more rows than the vocabulary, so a model can return ids beyond it.
        return self._pieces.id_to_piece(index if index < self.vocab_size else 0)


def _read(path: Path) -> SentencePieceProcessor:
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist: a LLaVA checkpoint needs its tokenizer.model"
        )
    refuse_pointer(path)
    try:
        model = SentencePieceProcessor(model_file=str(path))
        pieces = [model.id_to_piece(number) for number in range(model.get_piece_size())]
        model.encode(_SENTINEL, out_type=str)
    except (RuntimeError, OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path} is no readable sentencepiece model: {error}") from None
    if len(set(pieces)) < len(pieces):
        raise CheckpointError(f"{path} is no readable sentencepiece model: it has a piece twice")
    for token in _NAMES.values():
        if token not in pieces:
            raise CheckpointError(f"{path} has no piece {token}: not a LLaMA vocabulary")
    return model

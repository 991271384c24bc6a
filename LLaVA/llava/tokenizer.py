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

from llava.checkpoint.files import CheckpointError

_SPACE = "\u2581"
"""sentencepiece writes a space as this character."""

_SENTINEL = "\ue000"
"""A private-use character that is in no piece: text after it is encoded without a dummy prefix."""


class LlavaTokenizer(PreTrainedTokenizer):
    """Sentencepiece pieces as transformers tokens; ``<s>`` in front, padding on the left.

    sentencepiece's dummy prefix (a space) is added at the start of a text only, not after a special
    token inside it. Consecutive spaces are kept.

    Args:
        model_file: the ``tokenizer.model``.
        model_max_length: an attribute for its users; nothing is cut here.

    Raises:
        CheckpointError: the file is missing, unreadable, or lacks ``<unk>``, ``<s>`` or ``</s>``.
    """

    vocab_files_names = {"model_file": "tokenizer.model"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, model_file: str | Path, model_max_length: int = 2048, **kwargs: Any) -> None:
        self.model_file = str(model_file)
        self._pieces = _read(Path(model_file))
        self._sentinel = self._pieces.encode(_SENTINEL, out_type=str)
        names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        for token in names.values():
            if self._pieces.id_to_piece(self._pieces.piece_to_id(token)) != token:
                raise CheckpointError(f"{model_file} has no piece {token}: not a LLaMA vocabulary")
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
        for chunk in self.tokens_trie.split(text.replace(_SPACE, " ")):
            if not chunk:
                continue
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
    try:
        return SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{path} is no readable sentencepiece model: {error}") from None

"""Tokens that a checkpoint adds to its sentencepiece vocabulary, and how it treats special ones.

They are in ``added_tokens.json`` (older) or under ``added_tokens_decoder`` in
``tokenizer_config.json``.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from transformers import AddedToken

from llava.checkpoint.checked import Settings, checked
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.schema import TokenId

_LEGACY, _CONFIG, _NAMES = "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"
_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_MOST = 2**16

Content = Annotated[str, Field(min_length=1, max_length=1000)]


class _Token(Settings):
    """One entry of ``added_tokens_decoder``."""

    content: Content
    lstrip: bool = False
    rstrip: bool = False
    single_word: Literal[False] = False
    special: bool = False


class _Named(Settings):
    """A special token where it is an object."""

    content: Content


Name = Content | _Named


class _TokenizerSettings(Settings):
    """``tokenizer_config.json`` and ``special_tokens_map.json``, as far as they are used."""

    add_bos_token: Literal[True] = True
    add_eos_token: Literal[False] = False
    unk_token: Name | None = None
    bos_token: Name | None = None
    eos_token: Name | None = None
    pad_token: Name | None = None
    additional_special_tokens: Annotated[list[Name], Field(max_length=_MOST)] = []
    added_tokens_decoder: Annotated[dict[str, _Token], Field(max_length=_MOST)] = {}


class _Ids(Settings):
    ids: Annotated[dict[Content, TokenId], Field(max_length=_MOST)]


def read_added_tokens(
    files: CheckpointFiles, piece_of: Callable[[int], str], size: int
) -> dict[int, AddedToken]:
    """Return the tokens that a checkpoint adds, by id.

    Of tokens that are in the vocabulary already, those are returned that texts may hold.

    Args:
        files: the checkpoint.
        piece_of: the piece of an id.
        size: number of pieces.

    Raises:
        CheckpointError: an id that has another piece; ids that do not follow the vocabulary; other
            special tokens than Llama's; a token that only stands as a whole word.
    """
    config = _settings(files, _CONFIG)
    names = _settings(files, _NAMES)
    found = {
        _number(files, key): AddedToken(
            one.content, lstrip=one.lstrip, rstrip=one.rstrip, special=one.special, normalized=False
        )
        for key, one in config.added_tokens_decoder.items()
    }
    special = {_text(name) for one in (config, names) for name in _named(one)}
    legacy = checked(_Ids, {"ids": files.json(_LEGACY) or {}}, f"{_LEGACY} of {files.name}").ids
    for content, number in legacy.items():
        token = AddedToken(content, special=content in special, normalized=False)
        if found.setdefault(number, token).content != content:
            raise CheckpointError(
                f"{files.name} gives id {number} to {found[number].content!r:.80} in {_CONFIG} and "
                f"to {content!r:.80} in {_LEGACY}"
            )
    _check(files, found, piece_of, size)
    without_id = special - {one.content for one in found.values()} - set(map(piece_of, range(size)))
    if without_id:
        raise CheckpointError(
            f"{files.name} names the special token {min(without_id)!r:.80}, to which neither "
            f"tokenizer.model nor {_LEGACY} nor {_CONFIG} gives an id"
        )
    return {number: token for number, token in found.items() if token.content not in _OWN}


_OWN = frozenset(_SPECIAL.values())


def _settings(files: CheckpointFiles, name: str) -> _TokenizerSettings:
    where = f"{name} of {files.name}"
    settings = checked(_TokenizerSettings, files.json(name) or {}, where)
    for key, token in _SPECIAL.items():
        given: Name | None = getattr(settings, key)
        if given is not None and _text(given) != token:
            raise CheckpointError(f"{where}: {key} must be {token}, got {_text(given)!r:.80}")
    return settings


def _named(settings: _TokenizerSettings) -> list[Name]:
    pad = [] if settings.pad_token is None else [settings.pad_token]
    return [*settings.additional_special_tokens, *pad]


def _text(name: Name) -> str:
    return name if isinstance(name, str) else name.content


def _number(files: CheckpointFiles, key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 9):
        raise CheckpointError(
            f"{_CONFIG} of {files.name}: added_tokens_decoder must have token ids as keys, "
            f"got {key!r:.80}"
        )
    return int(key)


def _check(
    files: CheckpointFiles,
    found: Mapping[int, AddedToken],
    piece_of: Callable[[int], str],
    size: int,
) -> None:
    for number, token in found.items():
        if number < size and piece_of(number) != token.content:
            raise CheckpointError(
                f"{files.name} adds {token.content!r:.80} with id {number}, which is "
                f"{piece_of(number)!r:.80} in tokenizer.model"
            )
    contents: dict[str, Any] = {}
    for number, token in found.items():
        if contents.setdefault(token.content, number) != number:
            raise CheckpointError(
                f"{files.name} adds {token.content!r:.80} twice, as ids {contents[token.content]} "
                f"and {number}"
            )
    beyond = sorted(number for number in found if number >= size)
    if beyond != list(range(size, size + len(beyond))):
        raise CheckpointError(
            f"the added tokens of {files.name} must have the ids from {size} on, which follow "
            f"tokenizer.model without a gap, got {str(beyond)[:80]}"
        )

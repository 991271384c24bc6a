"""Tokens beside the sentencepiece vocabulary, in both files that checkpoints keep them in."""

import json

import pytest

from helpers import V15, change
from llava.checkpoint import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.configuration import LlavaConfig
from llava.model.vocabulary import read_tokenizer
from llava.tokenizer import LlavaTokenizer

ENTRY = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
SIZE = 618
"""Pieces of the tiny vocabulary."""


@pytest.fixture
def folder(tmp_path):
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_bytes((V15 / name).read_bytes())
    return tmp_path


def read(folder, vocabulary=SIZE + 4):
    return read_tokenizer(CheckpointFiles(str(folder)), LlavaConfig(vocab_size=vocabulary))


def older(folder, **ids):
    (folder / "added_tokens.json").write_text(json.dumps(ids))


def newer(folder, **entries):
    decoder = {number.strip("_"): ENTRY | entry for number, entry in entries.items()}
    change(folder / "tokenizer_config.json", added_tokens_decoder=decoder)


@pytest.mark.parametrize("form", ["older", "newer", "both"])
def test_added_tokens_have_the_ids_that_the_files_give(folder, form):
    if form != "newer":
        older(folder, **{"<pad>": SIZE + 1, "<box>": SIZE})
    if form != "older":
        newer(folder, _618={"content": "<box>"}, _619={"content": "<pad>", "special": True},
              _1={"content": "<s>", "special": True})  # fmt: skip
    change(folder / "special_tokens_map.json", pad_token={"content": "<pad>"})
    tokenizer = read(folder)
    plain = LlavaTokenizer(V15 / "tokenizer.model")
    ids = tokenizer("See <box>12</box> now<pad>").input_ids
    assert (ids.count(SIZE), ids.count(SIZE + 1), ids[-1]) == (1, 1, SIZE + 1)
    assert ids[: ids.index(SIZE)] == plain("See ").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "See <box>12</box> now"
    assert tokenizer.decode(ids) == "<s> See <box>12</box> now<pad>"
    assert tokenizer.convert_tokens_to_ids(["<box>", "<pad>"]) == [SIZE, SIZE + 1]
    assert len(tokenizer) == SIZE + 2
    assert tokenizer.add_tokens(["<im_start>"], special_tokens=True) == 1
    assert tokenizer("<im_start>").input_ids[-1] == SIZE + 2


def test_tokens_take_the_spaces_that_they_are_said_to_take(folder):
    newer(folder, _618={"content": "<l>", "lstrip": True}, _619={"content": "<r>", "rstrip": True})
    tokenizer = read(folder)
    left, right = tokenizer("a  <l> b").input_ids, tokenizer("a <r>  b").input_ids
    assert left[: left.index(SIZE)] == tokenizer("a").input_ids
    assert tokenizer.decode(left[left.index(SIZE) :]) == "<l> b"
    assert tokenizer.decode(right, skip_special_tokens=True) == "a <r>b"


def spoil_ids(folder):
    older(folder, **{"<a>": SIZE + 1})


def spoil_piece(folder):
    newer(folder, _7={"content": "<a>"})


def spoil_twice(folder):
    older(folder, **{"<a>": SIZE})
    newer(folder, _618={"content": "<b>"})


def spoil_again(folder):
    older(folder, **{"<a>": SIZE})
    newer(folder, _619={"content": "<a>"})


def spoil_number(folder):
    older(folder, **{"<a>": "618"})


def spoil_beyond(folder):
    older(folder, **{f"<{i}>": SIZE + i for i in range(5)})


def spoil_word(folder):
    newer(folder, _618={"content": "<a>", "single_word": True})


def spoil_key(folder):
    change(folder / "tokenizer_config.json", added_tokens_decoder={"x": ENTRY | {"content": "<a>"}})


def spoil_name(folder):
    change(folder / "special_tokens_map.json", additional_special_tokens=["<box>"])


def spoil_start(folder):
    change(folder / "tokenizer_config.json", bos_token="<begin>")


def spoil_no_start(folder):
    change(folder / "tokenizer_config.json", add_bos_token=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_ids, r"must have the ids from 618 on, .* got \[619\]"),
        (spoil_piece, "adds '<a>' with id 7, which is '.*' in tokenizer.model"),
        (spoil_twice, "gives id 618 to '<b>' in tokenizer_config.json and to '<a>' in added_"),
        (spoil_again, "adds '<a>' twice, as ids 61. and 61."),
        (spoil_number, "added_tokens.json of .*: ids.<a> must be a valid integer, got '618'"),
        (spoil_beyond, "adds token '<4>' with id 622, config.json says vocab_size 622"),
        (spoil_word, "single_word must be False, got True"),
        (spoil_key, "added_tokens_decoder must have token ids as keys, got 'x'"),
        (spoil_name, "names the special token '<box>', to which neither"),
        (spoil_start, "tokenizer_config.json of .*: bos_token must be <s>, got '<begin>'"),
        (spoil_no_start, "add_bos_token must be True, got False"),
    ],
)
def test_tokens_that_cannot_be_loaded_are_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        read(folder)

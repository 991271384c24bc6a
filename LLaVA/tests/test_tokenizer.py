"""Ids and texts against those of the slow tokenizer that LLaVA was published with."""

import json
import pickle

import pytest

from helpers import DATA, V15
from llava.checkpoint import CheckpointError
from llava.mm_utils import KeywordsStoppingCriteria, tokenizer_image_token
from llava.tokenizer import LlavaTokenizer

RECORDED = json.loads((DATA / "tokenizer" / "slow_4_37_2.json").read_text())
MODELS = {
    "tiny": V15 / "tokenizer.model",
    "trained": DATA / "tokenizer" / "trained.model",
}


@pytest.fixture(params=MODELS, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name):
    return LlavaTokenizer(MODELS[name])


def test_ids_are_those_of_the_slow_tokenizer(name, tokenizer):
    for entry in RECORDED[name]["encode"]:
        assert tokenizer(entry["text"]).input_ids == entry["ids"], entry["text"]


def test_texts_are_those_of_the_slow_tokenizer(name, tokenizer):
    for entry in RECORDED[name]["encode"] + RECORDED[name]["decode"]:
        for field, skip in (("decoded", True), ("decoded_all", False)):
            text = tokenizer.decode(entry["ids"], skip_special_tokens=skip)
            # The slow tokenizer leaves a run of spaces as it is if the vocabulary lacks one a
            # space shorter; LLaMA's has all of them.
            assert text == entry[field].replace("\u2581", " ")


def test_texts_come_back(tokenizer):
    for entry in RECORDED["trained"]["encode"]:
        text = entry["text"]
        if not any(special in text for special in ("<s>", "</s>", "<unk>", "\u2581")):
            ids = tokenizer(text).input_ids
            if 0 not in ids:
                assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_special_tokens_are_llama_s(tokenizer):
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token_id == 0
    assert tokenizer.padding_side == "left"


def test_batches_are_padded_on_the_left(tokenizer):
    batch = tokenizer(["a b c d", "a"], padding=True, return_tensors="pt")
    short = len(tokenizer("a").input_ids)
    assert batch.input_ids[1, -short:].tolist() == tokenizer("a").input_ids
    assert batch.attention_mask[1, :-short].sum() == 0
    texts = tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
    assert texts == ["a b c d", "a"]


def test_added_tokens_stand_for_themselves(name):
    tokenizer = LlavaTokenizer(MODELS[name])
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True) == 2
    ids = tokenizer("a<im_start>b<im_end> c").input_ids
    assert [i for i in ids if i >= size] == [size, size + 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab c"
    assert len(tokenizer) == size + 2
    assert tokenizer.vocab_size == size


def test_ids_beyond_the_vocabulary_decode_as_unknown(tokenizer):
    beyond = tokenizer.vocab_size + 19
    assert tokenizer.decode([5, beyond], skip_special_tokens=False).endswith("<unk>")


def test_a_tokenizer_survives_pickling_and_saving(tokenizer, tmp_path):
    (path,) = tokenizer.save_vocabulary(str(tmp_path))
    for other in (pickle.loads(pickle.dumps(tokenizer)), LlavaTokenizer(path)):
        assert other(" a </s> b").input_ids == tokenizer(" a </s> b").input_ids


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"no model", "no readable sentencepiece model"), (b"", "")],
)
def test_a_broken_file_is_named(content, message, tmp_path):
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"tokenizer.model.*{message}"):
        LlavaTokenizer(path)


def test_an_image_stands_between_texts_of_their_own_prefix():
    tokenizer = LlavaTokenizer(MODELS["tiny"])
    before, after = tokenizer("See").input_ids, tokenizer(" now").input_ids
    ids = tokenizer_image_token("See<image> now", tokenizer)
    assert ids == [*before, -200, *after[1:]]
    tensor = tokenizer_image_token("See<image> now", tokenizer, return_tensors="pt")
    assert tensor.tolist() == ids
    assert tokenizer_image_token("<image>", tokenizer) == [1, -200]
    assert tokenizer_image_token("<image><image>x", tokenizer)[:3] == [1, -200, -200]
    assert tokenizer_image_token("no image", tokenizer) == tokenizer("no image").input_ids
    with pytest.raises(ValueError, match="return_tensors must be 'pt' or None, got 'np'"):
        tokenizer_image_token("x", tokenizer, return_tensors="np")


def test_a_keyword_stops_its_own_row_only(tokenizer):
    stop = KeywordsStoppingCriteria(["###"], tokenizer, None)
    rows = tokenizer(["yes ###", "not yet, sorry"], padding=True, return_tensors="pt").input_ids
    assert stop(rows, None).tolist() == [True, False]

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import METHODS, brute_greedy, method_case, method_runs
from otprune import Signals, make_pruner
from otprune.greedy.coverage import coverage_loop
from otprune.greedy.covers import Cover
from otprune.selectors.mmtok import coverage_words

RUNS = [pytest.param(case, run, id=f"{case}-{run['id']}") for case, run in method_runs("mmtok")]
TEXT = json.loads((METHODS / "mmtok__text_and_padding.json").read_text())
WORDS = json.loads((METHODS / "mmtok__words.json").read_text())


def mmtok(run):
    return make_pruner(
        "mmtok",
        text_temperature=run["tv_temperature"],
        vision_temperature=run["vv_temperature"],
        alpha=run["alpha"],
        exclude_padding=run["exclude_padding"],
    )


def known(features, words, question="red circle"):
    return Signals(features=features, question=question, embed_words=lambda _: words)


def case_inputs(stored):
    """Tokens, features without the CLS token, embeddings of the question's words."""
    return (
        torch.tensor(stored["projected"][0]),
        torch.tensor(stored["hidden"][0, 1:]),
        torch.tensor(stored["text_tokens"]),
    )


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_picks_are_those_of_the_released_code_in_its_order(case, run):
    stored = method_case("mmtok", case)
    tokens, features, words = case_inputs(stored)
    padding = torch.zeros(len(tokens), dtype=torch.bool)
    if "padding_patches" in stored:
        padding[torch.tensor(stored["padding_patches"])] = True
        assert padding.any()
    signals = dataclasses.replace(known(features, words), padding=padding)
    assert mmtok(run).rank(tokens, run["tokens"], signals).tolist() == list(
        stored[f"{run['id']}.picks"]
    )
    kept = mmtok(run).select(tokens, run["tokens"], signals=signals)
    assert kept.tolist() == list(stored[f"{run['id']}.kept"])


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_values_are_those_of_the_released_code(case, run):
    stored = method_case("mmtok", case)
    tokens, features, words = case_inputs(stored)
    rows = mmtok(run).coverage(words, tokens, features)
    best, gains = torch.zeros(len(rows)), []
    for j in stored[f"{run['id']}.picks"]:
        gains.append((rows[:, j] - best).clamp(min=0).double().sum())
        best = torch.maximum(best, rows[:, j])
    np.testing.assert_allclose(torch.stack(gains), stored[f"{run['id']}.gains"], rtol=1e-4)
    largest = rows[: len(words)].amax(1)
    np.testing.assert_allclose(largest, stored[f"{run['id']}.text_row_max"], rtol=1e-5)


@pytest.mark.parametrize(
    "entry", TEXT["questions"] + WORDS["questions"], ids=lambda entry: entry["question"][:20]
)
def test_words_are_those_of_the_released_code(entry):
    assert " ".join(coverage_words(entry["question"])) == entry["text"]


@pytest.mark.parametrize("case", ["tower_land", "tower_port"])
def test_the_method_takes_image_placeholders_out(case):
    meta = method_case("mmtok", case)["meta"]
    seen = []

    def embed(words):
        seen.append(" ".join(words))
        return torch.ones(len(words), 4)

    signals = Signals(features=torch.eye(4), question=meta["question"], embed_words=embed)
    make_pruner("mmtok").rank(torch.eye(4), 2, signals)
    assert seen == [meta["text_for_coverage"]]


def test_format_prompts_are_cut_out_however_they_are_broken_into_lines():
    question = (
        "What colour?\nAnswer the question\nUSING a single word or phrase. Please answer yes or no"
    )
    assert coverage_words(question) == ["colour"]


def test_a_question_of_stop_words_is_taken_whole_but_for_format_prompts():
    prompt = "Answer the question using a single word or phrase."
    assert coverage_words("What is it?\n" + prompt) == ["What", "is", "it?"]
    assert coverage_words(prompt) == prompt.split()


def plain_rows(words, tokens, features, text_temperature, vision_temperature, alpha):
    """[P; alpha Q] as loops over Python's floats."""

    def cosine(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    def softmax(values, temperature, factor):
        powers = [math.exp(value / temperature) for value in values]
        return [factor * power / sum(powers) for power in powers]

    text = [
        softmax([cosine(word, t) for t in tokens], text_temperature, 1 / len(words))
        for word in words
    ]
    image = [
        softmax([cosine(f, g) for g in features], vision_temperature, alpha / len(features))
        for f in features
    ]
    return text + image


@given(n=st.integers(1, 12), m=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_picks_are_those_of_a_plain_implementation(n, m, seed):
    g = torch.Generator().manual_seed(seed)
    tokens, features, words = (torch.randn(size, 5, generator=g) for size in (n, n, m))
    pruner = make_pruner("mmtok", text_temperature=0.5, vision_temperature=0.4, alpha=0.7)
    rows = plain_rows(words.tolist(), tokens.tolist(), features.tolist(), 0.5, 0.4, 0.7)

    def value(chosen):
        return sum(max(row[j] for j in chosen) for row in rows)

    picks = pruner.rank(tokens, n, known(features, words)).tolist()
    # What the last picks add is nothing but rounding.
    sure = max(1, n // 2)
    assert picks[:sure] == brute_greedy(value, n, sure)
    for k in range(1, n):
        assert pruner.rank(tokens, k, known(features, words)).tolist() == picks[:k]


def test_barred_columns_come_only_when_no_other_is_left_and_none_comes_twice():
    rows = torch.rand(30, 20, generator=torch.Generator().manual_seed(0))
    last = torch.arange(4, 20)
    picks = coverage_loop(Cover(rows, 20, last)).tolist()
    assert sorted(picks) == list(range(20))
    assert set(picks[:4]) == {0, 1, 2, 3}
    assert coverage_loop(Cover(rows, 3, last)).tolist() == picks[:3]


def test_ends_of_rows_come_last_and_are_nothing_to_cover():
    g = torch.Generator().manual_seed(3)
    tokens, features, words = (torch.randn(size, 4, generator=g) for size in (7, 7, 2))
    features[[2, 5]] = 0
    tiles = torch.tensor([0, 0, -1, 1, 1, -1, 1])
    signals = Signals(features=features, question="cat", embed_words=lambda _: words, tiles=tiles)
    picks = make_pruner("mmtok").rank(tokens, 7, signals).tolist()
    patches = [0, 1, 3, 4, 6]
    alone = make_pruner("mmtok").rank(tokens[patches], 5, known(features[patches], words, "cat"))
    assert picks == [*(patches[i] for i in alone.tolist()), 2, 5]
    ends = Signals(
        features=features, question="cat", embed_words=lambda _: words, tiles=torch.full((7,), -1)
    )
    assert make_pruner("mmtok").rank(tokens, 3, ends).tolist() == [0, 1, 2]


def test_presets_are_the_codes_temperatures():
    assert make_pruner("mmtok", preset="llava") == make_pruner("mmtok")
    assert make_pruner("mmtok", preset="qwen").text_temperature == 0.01


@pytest.mark.parametrize("question", ["", "  \n", "<image>\n", "?!", "\u200b"])
def test_without_words_the_image_alone_is_covered_and_others_in_the_batch_keep_theirs(question):
    g = torch.Generator().manual_seed(4)
    tokens, features, words = (torch.randn(size, 6, generator=g) for size in (30, 30, 2))
    silent = Signals(
        features=features,
        question=question,
        embed_words=lambda asked: words[:0] if "".join(asked).strip("?!\u200b") == "" else words,
    )
    asked = known(features, words)
    image = torch.softmax(torch.cosine_similarity(features[:, None], features[None], -1) / 0.2, 1)
    alone = make_pruner("mmtok").rank(tokens, 9, silent)
    assert alone.tolist() == coverage_loop(Cover(image, 9)).tolist()
    together = make_pruner("mmtok").rank_batch([tokens] * 3, [9] * 3, [asked, silent, asked])
    assert together[1].tolist() == alone.tolist()
    for i in (0, 2):
        assert together[i].tolist() == make_pruner("mmtok").rank(tokens, 9, asked).tolist()
    nothing = make_pruner("mmtok", alpha=0.0).rank(tokens, 30, silent)
    assert nothing.tolist() == list(range(30)), "ties go to the lower position"


def test_padding_is_picked_last_but_for_newlines_and_never_twice():
    g = torch.Generator().manual_seed(5)
    tokens, features, words = (torch.randn(size, 4, generator=g) for size in (9, 9, 2))
    tiles = torch.tensor([0, 0, 0, 0, -1, 0, 0, 0, -1])
    padding = torch.tensor([1, 0, 0, 1, 0, 1, 0, 1, 0]).bool()
    signals = dataclasses.replace(known(features, words), tiles=tiles, padding=padding)
    picks = make_pruner("mmtok").rank(tokens, 9, signals).tolist()
    assert set(picks[:3]) == {1, 2, 6}
    assert set(picks[3:7]) == {0, 3, 5, 7}
    assert picks[7:] == [4, 8]
    unknown = dataclasses.replace(signals, padding=None)
    for preset in ("llava-1.6", "qwen"):
        pruner = make_pruner("mmtok", preset=preset)
        assert torch.equal(pruner.rank(tokens, 9, signals), pruner.rank(tokens, 9, unknown))


def test_impossible_settings_and_signals_are_refused():
    with pytest.raises(ValueError, match="text_temperature must be a finite number > 0, got 0"):
        make_pruner("mmtok", text_temperature=0)
    with pytest.raises(ValueError, match="vision_temperature must be a finite number > 0, got -1"):
        make_pruner("mmtok", vision_temperature=-1)
    for alpha in (-0.1, float("inf"), True, "1"):
        with pytest.raises(ValueError, match="alpha must be a finite number >= 0"):
            make_pruner("mmtok", alpha=alpha)
    with pytest.raises(ValueError, match="exclude_padding must be true or false, got 1"):
        make_pruner("mmtok", exclude_padding=1)
    with pytest.raises(ValueError, match="MMTok needs .*embed_words, signals.features, signals.q"):
        make_pruner("mmtok").rank(torch.eye(4), 2)
    with pytest.raises(ValueError, match=r"embed_words must give vectors \[m 4\], .* got shape"):
        make_pruner("mmtok").rank(torch.eye(4), 2, known(torch.eye(4), torch.eye(3)))

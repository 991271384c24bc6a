import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import METHODS, brute_greedy, method_case, method_runs
from otprune import Signals, make_pruner
from otprune.selectors.mmtok import coverage_picks, coverage_words

RUNS = [pytest.param(case, run, id=f"{case}-{run['id']}") for case, run in method_runs("mmtok")]
UNPADDED = [one for one in RUNS if not one.values[1]["exclude_padding"]]
TEXT = json.loads((METHODS / "mmtok__text_and_padding.json").read_text())


def mmtok(run):
    return make_pruner(
        "mmtok",
        text_temperature=run["tv_temperature"],
        vision_temperature=run["vv_temperature"],
        alpha=run["alpha"],
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


@pytest.mark.parametrize(("case", "run"), UNPADDED)
def test_picks_are_those_of_the_released_code_in_its_order(case, run):
    stored = method_case("mmtok", case)
    tokens, features, words = case_inputs(stored)
    signals = known(features, words)
    assert mmtok(run).rank(tokens, run["tokens"], signals).tolist() == list(
        stored[f"{run['id']}.picks"]
    )
    kept = mmtok(run).select(tokens, run["tokens"], signals=signals)
    assert kept.tolist() == list(stored[f"{run['id']}.kept"])


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_values_are_those_of_the_released_code_with_padding_last_as_well(case, run):
    stored = method_case("mmtok", case)
    tokens, features, words = case_inputs(stored)
    rows = mmtok(run).coverage(words, tokens, features)
    padding = torch.tensor(stored["padding_patches"]) if run["exclude_padding"] else None
    picks = coverage_picks(rows, run["tokens"], padding)
    assert picks.tolist() == list(stored[f"{run['id']}.picks"])
    best, gains = torch.zeros(len(rows)), []
    for j in picks:
        gains.append((rows[:, j] - best).clamp(min=0).double().sum())
        best = torch.maximum(best, rows[:, j])
    np.testing.assert_allclose(torch.stack(gains), stored[f"{run['id']}.gains"], rtol=1e-4)
    largest = rows[: len(words)].amax(1)
    np.testing.assert_allclose(largest, stored[f"{run['id']}.text_row_max"], rtol=1e-5)


@pytest.mark.parametrize("entry", TEXT["questions"], ids=lambda entry: entry["question"][:20])
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
    picks = coverage_picks(rows, 20, last).tolist()
    assert sorted(picks) == list(range(20))
    assert set(picks[:4]) == {0, 1, 2, 3}
    assert coverage_picks(rows, 3, last).tolist() == picks[:3]


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


@pytest.mark.parametrize("question", ["", "  \n", "<image>\n"])
def test_a_question_without_a_word_is_refused(question):
    with pytest.raises(ValueError, match=r"signals.question must hold a word for MMTok to cover"):
        make_pruner("mmtok").rank(torch.eye(4), 2, known(torch.eye(4), torch.eye(4), question))


def test_impossible_settings_and_signals_are_refused():
    with pytest.raises(ValueError, match="text_temperature must be a finite number > 0, got 0"):
        make_pruner("mmtok", text_temperature=0)
    with pytest.raises(ValueError, match="vision_temperature must be a finite number > 0, got -1"):
        make_pruner("mmtok", vision_temperature=-1)
    for alpha in (-0.1, float("inf"), True, "1"):
        with pytest.raises(ValueError, match="alpha must be a finite number >= 0"):
            make_pruner("mmtok", alpha=alpha)
    with pytest.raises(ValueError, match="MMTok needs .*embed_words, signals.features, signals.q"):
        make_pruner("mmtok").rank(torch.eye(4), 2)
    with pytest.raises(ValueError, match=r"embed_words must give vectors \[m 4\], .* got shape"):
        make_pruner("mmtok").rank(torch.eye(4), 2, known(torch.eye(4), torch.eye(3)))

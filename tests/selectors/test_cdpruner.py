import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import by_tile, first_difference, method_case, method_runs
from otprune import Signals, make_pruner
from otprune.selectors.cdpruner import conditional_picks, scaled_relevance

RUNS = [pytest.param(case, run, id=f"{case}-{run['id']}") for case, run in method_runs("cdpruner")]
# The first run of each case holds more than what is kept.
FIRST = [one for one in RUNS if one.values[1]["id"] in ("T48", "T192")]


def case_inputs(stored):
    tiles, n = stored["projected"].shape[:2]
    return torch.tensor(stored["projected"]).flatten(0, 1), Signals(
        clip_patches=torch.tensor(stored["image_embeds"]).flatten(0, 1),
        clip_text=torch.tensor(stored["text_embeds"]),
        tiles=torch.arange(tiles).repeat_interleave(n) if tiles > 1 else None,
    )


def some_signals(n, seed=0, p=6):
    g = torch.Generator().manual_seed(seed)
    patches, text = torch.randn(n, p, generator=g), torch.randn(2, p, generator=g)
    return Signals(clip_patches=patches, clip_text=text)


@pytest.mark.parametrize(("case", "run"), RUNS)
def test_each_tile_keeps_what_the_released_code_keeps(case, run):
    stored = method_case("cdpruner", case)
    tokens, signals = case_inputs(stored)
    tiles, n = stored["projected"].shape[:2]
    kept = make_pruner("cdpruner").select(tokens, run["tokens"] * tiles, signals=signals)
    assert by_tile(kept, n, tiles) == stored[f"{run['id']}.kept"].tolist()


@pytest.mark.parametrize(("case", "run"), FIRST)
def test_picks_and_relevance_are_those_of_the_released_code(case, run):
    stored, name = method_case("cdpruner", case), run["id"]
    tokens, signals = case_inputs(stored)
    tiles, n = stored["projected"].shape[:2]
    pruner = make_pruner("cdpruner")
    picks = by_tile(pruner.rank(tokens, run["tokens"] * tiles, signals), n, tiles)
    expected = stored[f"{name}.picks"].tolist()
    tolerated = run["float64"]["first_order_difference"]
    for mine, theirs, from_here in zip(picks, expected, tolerated, strict=True):
        difference = first_difference(mine, theirs)
        assert difference is None or (from_here is not None and difference >= from_here)
    raw = -(unit(stored["image_embeds"]) @ unit(stored["text_embeds"]).T).mean(-1).flatten()
    mine = scaled_relevance(torch.tensor(raw), torch.arange(len(tokens)))
    np.testing.assert_allclose(mine, stored[f"{name}.relevance"].flatten(), atol=1e-6)


@pytest.mark.parametrize(("case", "run"), FIRST)
def test_gains_along_the_picks_are_those_of_the_released_code(case, run):
    stored, name = method_case("cdpruner", case), run["id"]
    for tile, picks in enumerate(stored[f"{name}.picks"]):
        units = unit(stored["projected"][tile].astype(np.float64))
        relevance = stored[f"{name}.relevance"][tile].astype(np.float64)
        kernel = relevance[:, None] * (units @ units.T) * relevance
        np.testing.assert_allclose(kernel[0], stored[f"{name}.kernel_row0"][tile], atol=1e-5)
        expected = stored[f"{name}.gains"][tile]
        assert np.abs(np.array(gains_along(kernel, list(picks))) - expected).max() < 4e-5


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def gains_along(kernel, picks):
    """Conditional variance of each pick given those before, from the inverse of their kernel."""
    gains = []
    for t, j in enumerate(picks):
        before = picks[:t]
        solved = np.linalg.solve(kernel[np.ix_(before, before)], kernel[before, j])
        gains.append(kernel[j, j] - kernel[j, before] @ solved)
    return gains


def plain_run(tokens, patches, text, k):
    """The method as loops over Python's floats, determinants by numpy in float64."""

    def cosine(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    raw = [-sum(cosine(patch, row) for row in text) / len(text) for patch in patches]
    low, high = min(raw), max(raw)
    relevance = [(r - low + 1e-6) / (high - low) for r in raw]
    n = len(tokens)
    kernel = np.array(
        [
            [relevance[i] * cosine(tokens[i], tokens[j]) * relevance[j] for j in range(n)]
            for i in range(n)
        ]
    )
    picks: list[int] = []
    for _ in range(k):
        best, winner = -1.0, -1
        for j in set(range(n)) - set(picks):
            index = [*picks, j]
            value = np.linalg.det(kernel[np.ix_(index, index)])
            if value > best:
                best, winner = value, j
        picks.append(winner)
    return picks


@given(n=st.integers(2, 12), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_picks_are_those_of_a_plain_implementation(n, seed):
    g = torch.Generator().manual_seed(seed)
    tokens, signals = torch.randn(n, 16, generator=g), some_signals(n, seed)
    k = max(1, n // 2)
    picks = make_pruner("cdpruner").rank(tokens, k, signals)
    assert picks.tolist() == plain_run(
        tokens.tolist(), signals.clip_patches.tolist(), signals.clip_text.tolist(), k
    )


@given(n=st.integers(2, 20), d=st.integers(1, 12), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_smaller_budgets_are_prefixes_also_with_tiles_and_beyond_the_rank(n, d, seed):
    g = torch.Generator().manual_seed(seed)
    tokens, signals = torch.randn(n, d, generator=g), some_signals(n, seed)
    tiles = torch.randint(-1, 3, (n,), generator=g)
    for known in (signals, Signals(signals.grid, tiles=tiles, **clip_of(signals))):
        pruner = make_pruner("cdpruner")
        whole = pruner.rank(tokens, n, known).tolist()
        assert sorted(whole) == list(range(n))
        for k in range(1, n):
            assert pruner.rank(tokens, k, known).tolist() == whole[:k]


def clip_of(signals):
    return {"clip_patches": signals.clip_patches, "clip_text": signals.clip_text}


def test_once_the_picks_span_all_channels_the_rest_follows_by_relevance():
    g = torch.Generator().manual_seed(5)
    units = torch.nn.functional.normalize(torch.randn(60, 24, generator=g), dim=1)
    relevance = torch.rand(60, generator=g) * 0.9 + 0.1
    picks = conditional_picks(units, relevance, 60).tolist()
    assert sorted(picks) == list(range(60))
    rest = picks[24:]
    assert rest == sorted(rest, key=lambda i: -relevance[i])


def test_a_token_of_little_relevance_goes_before_a_duplicate_of_a_relevant_one():
    tokens = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    picks = conditional_picks(tokens, torch.tensor([1.0, 1.0, 1e-4]), 3)
    assert picks.tolist() == [0, 2, 1]


def test_without_relevance_it_is_the_plain_dpp():
    tokens = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    plain = make_pruner("cdpruner", preset="plain")
    assert plain.needs == frozenset()
    assert plain.rank(tokens, 40).tolist() == make_pruner("dpp").rank(tokens, 40).tolist()


def test_rows_made_one_by_one_give_the_same_picks(monkeypatch):
    g = torch.Generator().manual_seed(2)
    units = torch.nn.functional.normalize(torch.randn(40, 20, generator=g), dim=1)
    relevance = torch.rand(40, generator=g)
    expected = conditional_picks(units, relevance, 15)
    monkeypatch.setattr("otprune.selectors.cdpruner._FULL_UP_TO", 10)
    assert conditional_picks(units, relevance, 15).tolist() == expected.tolist()


def test_patches_least_like_the_text_in_clips_space_are_the_relevant_ones():
    tokens = torch.eye(3)
    signals = Signals(
        clip_patches=torch.tensor([[1.0, 0], [0, 1], [-1, 0]]), clip_text=torch.tensor([[1.0, 0]])
    )
    assert make_pruner("cdpruner").rank(tokens, 3, signals).tolist() == [2, 1, 0]


def test_under_llm_tokens_most_like_the_question_are_the_relevant_ones():
    signals = Signals(text_embeddings=torch.tensor([[0.0, 2, 1], [0, 2, 1]]))
    pruner = make_pruner("cdpruner", relevance="llm")
    assert pruner.needs == {"text_embeddings"}
    assert pruner.rank(torch.eye(3), 3, signals).tolist() == [1, 2, 0]


def test_relevance_that_is_the_same_everywhere_counts_as_one():
    assert scaled_relevance(torch.full((4,), 0.3), torch.arange(4)).tolist() == [1.0] * 4


def test_relevance_is_scaled_over_all_tiles_together_but_not_over_ends_of_rows():
    raw = torch.tensor([0.0, 1.0, -5.0, 0.5])
    scaled = scaled_relevance(raw, torch.tensor([0, 1, 3]))
    torch.testing.assert_close(scaled[[0, 1, 3]], torch.tensor([1e-6, 1.000001, 0.500001]))


def test_ends_of_rows_come_last():
    tokens = torch.eye(5)
    signals = Signals(tiles=torch.tensor([0, 0, -1, 1, -1]), **clip_of(some_signals(5)))
    assert make_pruner("cdpruner").rank(tokens, 5, signals).tolist()[3:] == [2, 4]
    ends = Signals(tiles=torch.full((5,), -1), **clip_of(some_signals(5)))
    assert make_pruner("cdpruner").rank(tokens, 3, ends).tolist() == [0, 1, 2]


def test_impossible_settings_and_signals_are_refused():
    with pytest.raises(ValueError, match="relevance must be one of clip, llm, none; got 'text'"):
        make_pruner("cdpruner", relevance="text")
    tokens = torch.eye(4)
    with pytest.raises(ValueError, match=r"CDPruner needs signals.clip_patches, signals.clip_text"):
        make_pruner("cdpruner").rank(tokens, 2)
    wide = Signals(clip_patches=torch.ones(4, 3), clip_text=torch.ones(1, 2))
    with pytest.raises(ValueError, match="clip_text must have the 3 channels of clip_patches"):
        make_pruner("cdpruner").rank(tokens, 2, wide)
    flat = Signals(clip_patches=torch.ones(4, 3), clip_text=torch.ones(3))
    with pytest.raises(ValueError, match=r"clip_text must be a matrix, got shape \(3,\)"):
        make_pruner("cdpruner").rank(tokens, 2, flat)


@pytest.mark.parametrize("relevance", ["clip", "llm"])
def test_a_question_without_text_leaves_a_plain_dpp_alone_and_in_a_batch(relevance):
    g = torch.Generator().manual_seed(2)
    tokens, patches = torch.randn(30, 8, generator=g), torch.randn(30, 5, generator=g)
    asked = Signals(
        clip_patches=patches,
        clip_text=torch.randn(2, 5, generator=g),
        text_embeddings=torch.randn(3, 8, generator=g),
    )
    silent = dataclasses.replace(
        asked, clip_text=torch.ones(0, 5), text_embeddings=torch.ones(0, 8)
    )
    pruner = make_pruner("cdpruner", relevance=relevance)
    plain = make_pruner("cdpruner", preset="plain").rank(tokens, 8).tolist()
    assert pruner.rank(tokens, 8, silent).tolist() == plain
    together = pruner.rank_batch([tokens] * 2, [8, 8], [asked, silent])
    assert together[0].tolist() == pruner.rank(tokens, 8, asked).tolist() != plain
    assert together[1].tolist() == plain

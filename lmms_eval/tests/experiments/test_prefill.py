"""The prefill of a mean prompt, from measured tokens and schedules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune.cost import DecoderShape, prefill_multiply_adds
from otprune_lmms.experiments.prefill import PromptTokens, mean_prefill, multiply_adds
from otprune_lmms.pruning_config import PruningConfig

quiet = settings(deadline=None, max_examples=40, derandomize=True)

TINY = DecoderShape(hidden=8, feed_forward=20, layers=6, heads=2)
EIGHT = DecoderShape(hidden=8, feed_forward=20, layers=8, heads=2)


@quiet
@given(
    layer=st.integers(0, 9), text=st.integers(0, 50), kept=st.integers(0, 40),
    more=st.integers(0, 200), convention=st.sampled_from(["2ndm", "3ndm"]),
)  # fmt: skip
def test_layers_before_the_pruning_process_all_tokens(layer, text, kept, more, convention):
    each = [text + kept + more if at < layer else text + kept for at in range(TINY.layers)]
    config = PruningConfig.make("uniform", 0.5, layer=layer)
    found = mean_prefill(config, TINY, [PromptTokens((kept,), (kept + more,))], text)
    assert found.multiply_adds[convention] == prefill_multiply_adds(TINY, each, convention)
    assert found.layer_tokens == pytest.approx(sum(each) / TINY.layers - text)


@quiet
@given(st.floats(0, 60), st.floats(0, 600))
def test_a_mean_that_is_not_whole_is_between_its_neighbours(text, kept):
    tokens = text + kept
    d, m = TINY.hidden, TINY.feed_forward
    exact = TINY.layers * (4 * tokens * d * d + 2 * tokens**2 * d + 2 * tokens * d * m)
    found = multiply_adds(TINY, [(tokens, TINY.layers)], "2ndm")
    assert -1e-6 * exact <= found - exact <= TINY.layers * 2 * d / 4 + 1e-6 * exact


def test_a_prompt_of_several_images_counts_them_all():
    config = PruningConfig.make("otprune", 0.1)
    prompts = [PromptTokens((56,), (576,)), PromptTokens((56, 56, 56), (576, 576, 576))]
    found = mean_prefill(config, TINY, prompts, 10)
    assert found.multiply_adds["2ndm"] == prefill_multiply_adds(TINY, [10 + 112] * 6, "2ndm")
    assert found.layer_tokens == 56


def test_a_schedule_counts_each_image_and_prompts_without_images_are_left_out():
    config = PruningConfig.make("pyramiddrop", schedule="2:0.5/4:0.25")
    one, three = PromptTokens((64,), (256,)), PromptTokens((64, 64, 64), (256, 256, 256))
    tokens = [256, 256, 128, 128, 64, 64, 64, 64]
    plain = mean_prefill(config, EIGHT, [one], 10)
    assert plain.layer_tokens == sum(tokens) / 8
    assert plain.multiply_adds["2ndm"] == prefill_multiply_adds(
        EIGHT, [10 + n for n in tokens], "2ndm"
    )
    several = mean_prefill(config, EIGHT, [one, three, PromptTokens((), ())], 10)
    assert several.layer_tokens == plain.layer_tokens
    assert several.multiply_adds["2ndm"] == prefill_multiply_adds(
        EIGHT, [10 + 2 * n for n in tokens], "2ndm"
    )


def test_prompts_without_images_have_no_tokens():
    found = mean_prefill(PruningConfig(), TINY, [PromptTokens((), ())], 20)
    assert found.layer_tokens is None
    assert found.multiply_adds["2ndm"] == prefill_multiply_adds(TINY, [20] * 6, "2ndm")

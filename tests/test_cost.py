import dataclasses

import pytest

from otprune import resolve_budget
from otprune.cost import (
    VICUNA_7B,
    VICUNA_13B,
    DecoderShape,
    decode_multiply_adds,
    kv_cache_bytes,
    prefill_multiply_adds,
)

# Text lengths and LLaVA-1.6 visual tokens of the 11 benchmarks, in the order coco, flickr, gqa,
# mmb, mme, mmmu, nocaps, okvqa, pope, sqa, seed, as DivPrune's and OTPrune's tables count them.
TEXT = [15, 15, 23, 83, 25, 113, 15, 39, 21, 91, 57]
VISUAL_16 = [2225, 1922, 2239, 1927, 2108, 1882, 2292, 2249, 2250, 1598, 2116]
TERA = 1e12


@pytest.mark.parametrize(
    ("shape", "visual", "full", "pruned", "ratio"),
    [
        (VICUNA_7B, [576] * 11, 3.228, 0.512, 0.1563),
        (VICUNA_13B, [576] * 11, 6.281, 1.002, 0.1571),
        (VICUNA_7B, VISUAL_16, 11.849, 1.266, 0.1080),
    ],
)
def test_the_published_teraflops_of_otprune_and_divprune(shape, visual, full, pruned, ratio):
    def cost(tokens):
        return prefill_multiply_adds(shape, tokens, "2ndm")

    whole = [cost(v + t) for v, t in zip(visual, TEXT, strict=True)]
    kept = [
        cost(resolve_budget(v, keep_ratio=0.098) + t) for v, t in zip(visual, TEXT, strict=True)
    ]
    assert sum(whole) / 11 / TERA == pytest.approx(full, abs=5e-4)
    assert sum(kept) / 11 / TERA == pytest.approx(pruned, abs=5e-4)
    # The printed ratio is the mean of the benchmarks' ratios.
    mean_ratio = sum(k / w for k, w in zip(kept, whole, strict=True)) / 11
    assert mean_ratio == pytest.approx(ratio, abs=5e-5)


def test_the_published_teraflops_of_transprune():
    full = prefill_multiply_adds(VICUNA_7B, 576, "3ndm")
    assert full / TERA == pytest.approx(3.82, abs=5e-3)
    # High: 504, 360 and 72 tokens after layers 7, 9 and 12.
    schedule = [576] * 7 + [504] * 2 + [360] * 3 + [72] * 20
    high = prefill_multiply_adds(VICUNA_7B, schedule, "3ndm")
    assert high / TERA == pytest.approx(1.557, abs=5e-4)
    assert high / full == pytest.approx(0.408, abs=5e-4)


def test_a_layer_costs_what_its_matrices_and_scores_cost():
    shape = DecoderShape(hidden=8, feed_forward=20, layers=1, heads=2)
    n, d, m = 5, 8, 20
    projections = 4 * n * d * d
    scores_and_values = 2 * n * n * d
    assert (
        prefill_multiply_adds(shape, n, "2ndm") == projections + scores_and_values + 2 * n * d * m
    )
    assert (
        prefill_multiply_adds(shape, n, "3ndm") == projections + scores_and_values + 3 * n * d * m
    )


def test_decoding_adds_up_token_by_token():
    shape = DecoderShape(hidden=8, feed_forward=20, layers=3, heads=2)
    cached = [7, 5, 2]
    by_hand = 0
    for step in range(4):
        for c in cached:
            keys = c + step + 1
            by_hand += 4 * 64 + 2 * keys * 8 + 3 * 8 * 20
    assert decode_multiply_adds(shape, cached, 4, "3ndm") == by_hand
    assert decode_multiply_adds(shape, cached, 0, "3ndm") == 0


def test_the_cache_of_llava_15_7b():
    # 2 (keys and values) x 32 layers x 4096 channels x 2 bytes = 512 KiB a token.
    assert kv_cache_bytes(VICUNA_7B, 576) == 576 * 512 * 1024
    assert kv_cache_bytes(VICUNA_7B, 576, bytes_per_element=4) == 576 * 1024 * 1024
    schedule = [576] * 2 + [56] * 30
    assert kv_cache_bytes(VICUNA_7B, schedule) == (2 * 576 + 30 * 56) * 2 * 4096 * 2


def test_grouped_queries_shrink_the_cache():
    grouped = dataclasses.replace(VICUNA_7B, kv_heads=8)
    assert kv_cache_bytes(grouped, 100) * 4 == kv_cache_bytes(VICUNA_7B, 100)
    wide = DecoderShape(hidden=64, feed_forward=64, layers=1, heads=4, head_dim=32)
    assert kv_cache_bytes(wide, 1, bytes_per_element=1) == 2 * 4 * 32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: prefill_multiply_adds(VICUNA_7B, 10, "ndm"),
            "convention must be one of 2ndm, 3ndm",
        ),
        (lambda: prefill_multiply_adds(VICUNA_7B, [10] * 31, "2ndm"), "each of 32 layers, got 31"),
        (lambda: prefill_multiply_adds(VICUNA_7B, -1, "2ndm"), "tokens must be an integer >= 0"),
        (lambda: decode_multiply_adds(VICUNA_7B, 10, -1, "2ndm"), "new must be an integer >= 0"),
        (lambda: kv_cache_bytes(VICUNA_7B, 1, 0), "bytes_per_element must be an integer >= 1"),
        (lambda: DecoderShape(0, 1, 1, 1), "hidden must be an integer >= 1"),
        (lambda: DecoderShape(8, 1, 1, 3), "heads must divide hidden = 8, got 3"),
        (lambda: DecoderShape(8, 1, 1, 2, kv_heads=0), "kv_heads must be an integer >= 1"),
    ],
)
def test_bad_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

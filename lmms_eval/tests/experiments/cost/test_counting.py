"""FLOPs, keys and values of one prefill, by closed forms."""

import pytest
import torch

from helpers import TINY, TINY_ANYRES, loaded, request, tiny
from otprune import make_pruner
from otprune.cost import kv_cache_bytes, prefill_multiply_adds
from otprune.pruning import Pruning, Stage, make_pruning
from otprune_lmms.engine.prepare import RequestPreparer
from otprune_lmms.engine.responder import Responder
from otprune_lmms.engine.visual_store import keys_of
from otprune_lmms.experiments.cost.counting import count_prefill, counted_flops

SHAPE = tiny().shape
SHORT, LONG = "What is it?", "How many are there, and of what colour is the largest of them all?"


def rows(requests, checkpoint=TINY):
    """Requests as the model takes them."""
    model = tiny(checkpoint)
    preparer = RequestPreparer(model, "", "first_frame")
    responder = Responder(model)
    found = []
    for one in requests:
        prepared = preparer.prepare(one)
        pixels = [model.preprocess(image) for image in preparer.images(one)]
        tokens = model.encode(pixels, frozenset()) if pixels else []
        visual = dict(zip(keys_of(prepared), tokens, strict=True))
        found.append(responder.model_input(prepared, visual))
    return found


@torch.inference_mode()
def count(given, pruning=None, checkpoint=TINY, convention="3ndm"):
    return count_prefill(tiny(checkpoint), given, sum(map(text, given)), pruning, convention)


def by_hand(layers: list[int]) -> int:
    """Floating-point operations of a prefill whose layers see so many positions.

    The decoder's matrices and attention, and the output head at one position.
    """
    config = loaded()[1].config
    decoder = 2 * prefill_multiply_adds(SHAPE, layers, "3ndm")
    return decoder + 2 * config.hidden_size * config.vocab_size


@pytest.fixture(scope="module")
def prepared_rows():
    with torch.inference_mode():
        two = ["port.png", "land.png"]
        return rows([request(0, SHORT), request(1, LONG, two), request(2, LONG, [])])


def text(row) -> int:
    return int((row.ids >= 0).sum())


def test_torch_counts_what_the_gated_formula_says(prepared_rows):
    layers = loaded()[1].config.num_hidden_layers
    for row, images in zip(prepared_rows, (1, 2, 0), strict=True):
        found = count([row])
        n = text(row) + 576 * images
        assert (found.visual, found.kept, found.text) == (576 * images, 576 * images, text(row))
        assert found.flops == by_hand([n] * layers)
        assert found.multiply_adds == prefill_multiply_adds(SHAPE, n, "3ndm")
        assert found.kv_bytes == kv_cache_bytes(SHAPE, n, 4)


def test_every_layer_counts_with_the_tokens_that_entered_it(prepared_rows):
    config = loaded()[1].config
    layers, n = config.num_hidden_layers, text(prepared_rows[0]) + 576
    assert layers > 2
    for layer in (0, 2):
        found = count([prepared_rows[0]], make_pruning("uniform", k=56, layer=layer))
        per_layer = [n] * layer + [n - 520] * (layers - layer)
        assert found.flops == by_hand(per_layer)
        assert found.multiply_adds == prefill_multiply_adds(SHAPE, per_layer, "3ndm")
        assert found.kv_bytes == kv_cache_bytes(SHAPE, per_layer, 4)
        assert (found.visual, found.kept) == (576, 56)
        two = count(
            [prepared_rows[0]], make_pruning("uniform", k=56, layer=layer), convention="2ndm"
        )
        assert two.multiply_adds == prefill_multiply_adds(SHAPE, per_layer, "2ndm")
        assert two.flops == found.flops, "what is counted knows no convention"


def test_two_stages_and_a_budget_that_drops_nothing(prepared_rows):
    config = loaded()[1].config
    layers, n = config.num_hidden_layers, text(prepared_rows[0])
    uniform = make_pruner("uniform")
    two = Pruning((Stage(uniform, k=100), Stage(uniform, k=10, layer=1)))
    found = count([prepared_rows[0]], two)
    assert found.kept == 10
    assert found.flops == by_hand([n + 100] + [n + 10] * (layers - 1))
    plain = count([prepared_rows[0]])
    assert count([prepared_rows[0]], make_pruning("otprune", k=577)) == plain
    assert count([prepared_rows[0]], make_pruning("otprune", keep_ratio=1.0, layer=1)) == plain


@pytest.mark.parametrize(
    "pruning",
    [
        make_pruning("fastv", schedule="1:0.5/2:0.25"),
        make_pruning("pyramiddrop", keep_ratio=0.5, schedule="1:0.5/3:0.25"),
        make_pruning("vtw", schedule="2:0"),
        make_pruning("pooling", k=100),
    ],
    ids=repr,
)
def test_a_schedule_counts_with_what_it_plans(prepared_rows, pruning):
    shape, n = SHAPE, text(prepared_rows[0])
    planned = pruning.tokens_by_layer(576, shape)
    found = count([prepared_rows[0]], pruning)
    per_layer = [n + tokens for tokens in planned]
    assert (found.visual, found.kept) == (576, planned[-1])
    assert found.multiply_adds == prefill_multiply_adds(shape, per_layer, "3ndm")
    assert found.kv_bytes == kv_cache_bytes(shape, per_layer, 4)
    # What ranks tokens costs something, too.
    assert found.flops >= by_hand(per_layer)


def test_a_batch_is_its_rows_and_their_padding(prepared_rows):
    alone = [count([row]) for row in prepared_rows]
    together = count(prepared_rows)
    for name in ("visual", "kept", "text", "multiply_adds"):
        assert getattr(together, name) == sum(getattr(one, name) for one in alone)
    longest = max(text(row) + 576 * len(row.visual) for row in prepared_rows)
    assert together.kv_bytes == 3 * kv_cache_bytes(SHAPE, longest, 4)
    assert together.flops > sum(one.flops for one in alone)


def test_selection_is_counted_where_it_multiplies_matrices(prepared_rows):
    free, paid = (
        count([prepared_rows[0]], make_pruning(name, k=56)) for name in ("uniform", "divprune")
    )
    assert paid.flops > free.flops
    assert paid.multiply_adds == free.multiply_adds


def test_tiles_are_counted_as_they_are():
    with torch.inference_mode():
        (row,) = rows([request(0, SHORT, ["wide.png"])], TINY_ANYRES)
    found = count([row], make_pruning("uniform", keep_ratio=0.1), TINY_ANYRES)
    assert found.visual == len(row.visual[0]) > 576
    assert found.kept == round(0.1 * found.visual)


def test_attention_of_the_cpu_is_counted():
    q = torch.randn(2, 3, 7, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    with torch.inference_mode():
        _, flops = counted_flops(lambda: attention(q, q, q, is_causal=True))
    assert flops == 2 * (2 * 2 * 3 * 7 * 7 * 8)

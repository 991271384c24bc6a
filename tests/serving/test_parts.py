"""The plug-in's parts that need no vLLM."""

import sys
import types

import numpy as np
import pytest
import torch
from otprune_vllm.placeholders import counts_of, shortened, spans, unit_sizes
from otprune_vllm.positions import (
    ImageSpan,
    first_positions,
    moved,
    with_places,
    without_places,
)
from otprune_vllm.requests import ImageRequest, image_id, read_requests
from otprune_vllm.seams import UnknownVLLMError, check_seams
from PIL import Image

from otprune import Pooling, Signals, resolve_budget
from otprune.serving import ServedPruning

IMAGE = 9


@pytest.mark.parametrize("ratio", [1e-9, 0.098, 1 / 3, 0.2, 0.5, 1.0])
def test_a_request_arrives_as_it_was_sent(ratio):
    sent = [
        ImageRequest(ServedPruning("otprune", ratio, {"gamma": 0.05}), None),
        ImageRequest(ServedPruning("random", ratio, {"seed": 3}), 2**60 - 1),
    ]
    assert read_requests([one.as_bytes() for one in sent]) == sent
    assert sent[0].as_bytes().dtype == torch.uint8


def test_requests_of_one_length_arrive_stacked_and_others_apart():
    one, other = ImageRequest(ServedPruning()), ImageRequest(ServedPruning("divprune", 0.5))
    assert read_requests(torch.stack([one.as_bytes()] * 3)) == [one] * 3
    assert read_requests(one.as_bytes()[None]) == [one]
    assert read_requests([one.as_bytes(), other.as_bytes()[None]]) == [one, other]


def test_an_image_has_the_same_number_however_it_is_given():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image = Image.fromarray(pixels)
    assert image_id(pixels) == image_id(image) == image_id(image.convert("RGBA"))
    assert image_id(image) != image_id(image.resize((4, 5)))
    assert image_id(Image.new("RGB", (2, 3))) != image_id(Image.new("RGB", (3, 2)))


def short(ids: list[int], ratio: float, unit: int | None = None) -> list[int]:
    embedded = [one == IMAGE for one in ids]
    sizes = unit_sizes(sum(embedded), unit)
    counts = counts_of(sizes, ServedPruning("first_k", ratio), None)
    return shortened(ids, embedded, sizes, counts)


def test_an_image_keeps_as_many_placeholders_as_tokens():
    ids = [1, *[IMAGE] * 10, 2]
    found = short(ids, 0.3)
    assert found == [1, IMAGE, IMAGE, IMAGE, 2]


def test_each_tile_has_its_budget_and_text_between_tiles_stays():
    ids = [1, *[IMAGE] * 4, 2, *[IMAGE] * 4, 3]
    found = short(ids, 0.5, 4)
    assert found == [1, IMAGE, IMAGE, 2, IMAGE, IMAGE, 3]


def test_text_inside_a_tile_stays():
    ids = [IMAGE, IMAGE, 5, IMAGE, IMAGE, 6]
    assert short(ids, 0.5) == [IMAGE, IMAGE, 5, 6]


@pytest.mark.parametrize("ratio", [1e-9, 0.098, 0.2, 0.35, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("n", [1, 2, 24, 64, 577])
def test_placeholders_and_tokens_agree_in_number(n, ratio):
    assert len(short([IMAGE] * n, ratio)) == resolve_budget(n, keep_ratio=ratio)


@pytest.mark.parametrize("ratio", [1e-9, 0.1, 0.2, 0.35, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 10), (10, 3), (24, 24)])
def test_pooling_makes_as_many_tokens_as_placeholders_stay(shape, ratio):
    n = shape[0] * shape[1]
    tokens = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    made = Pooling().merge(tokens, keep_ratio=ratio, signals=Signals(grid=shape))
    pruning = ServedPruning("pooling", ratio)
    assert counts_of([n], pruning, shape) == [len(made.places)]
    if shape[0] == shape[1]:
        assert counts_of([n], pruning, None) == [len(made.places)]


def test_tokens_without_a_shape_must_be_a_square_to_be_pooled():
    with pytest.raises(ValueError, match="must be a square where its shape is unknown, got 6"):
        counts_of([6], ServedPruning("pooling", 0.5), None)


def test_tokens_that_are_no_whole_number_of_tiles_are_refused():
    with pytest.raises(ValueError, match="must be a multiple of 4, got 6"):
        unit_sizes(6, 4)
    assert spans(unit_sizes(8, 4)) == [slice(0, 4), slice(4, 8)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_places_survive_the_model_s_type(dtype):
    columns = 1000
    kept = torch.tensor([0, 255, 256, 257, 65_537, 999_999])
    tokens = torch.randn(6, 4).to(dtype)
    back, place = without_places(with_places(tokens, kept, columns))
    assert torch.equal(back, tokens)
    assert place.tolist() == [(kept // columns).tolist(), (kept % columns).tolist()]


def by_hand(length, images, kept):
    """Return positions of a pruned prompt: those of the unpruned one, gathered."""
    columns, at, done = [], 0, 0
    for (start, _, rows, width), keep in zip(images, kept, strict=True):
        columns += [(at + i,) * 3 for i in range(start - done)]
        at += start - done
        columns += [(at, at + int(one) // width, at + int(one) % width) for one in keep]
        at, done = at + max(rows, width), start + len(keep)
    columns += [(at + i,) * 3 for i in range(length - done)]
    return torch.tensor(columns).T, at + length - done - length


PORTRAIT_AND_LANDSCAPE = [ImageSpan(3, 4, 5, 2), ImageSpan(9, 3, 2, 6)]
KEPT = [torch.tensor([0, 3, 6, 9]), torch.tensor([1, 5, 11])]


@pytest.mark.parametrize("chunks", [[(0, 14)], [(0, 5), (5, 10), (10, 14)], [(0, 4), (4, 14)]])
def test_positions_are_those_of_the_unpruned_prompt_in_any_chunks(chunks):
    wanted, delta = by_hand(14, PORTRAIT_AND_LANDSCAPE, KEPT)
    positions, found = first_positions(14, PORTRAIT_AND_LANDSCAPE)
    assert found == delta
    is_image = torch.zeros(14, dtype=torch.bool)
    for start, length, *_ in PORTRAIT_AND_LANDSCAPE:
        is_image[start : start + length] = True
    for begin, end in chunks:
        places = []
        for (start, length, _, width), keep in zip(PORTRAIT_AND_LANDSCAPE, KEPT, strict=True):
            inside = keep[max(begin - start, 0) : max(min(end - start, length), 0)]
            if len(inside):
                places.append(torch.stack([inside // width, inside % width]))
        positions = moved(positions, is_image, places, begin)
        # Again, as after a preemption.
        assert torch.equal(moved(positions, is_image, places, begin), positions)
    assert torch.equal(positions, wanted)


def test_without_images_in_a_chunk_nothing_moves():
    positions, _ = first_positions(14, PORTRAIT_AND_LANDSCAPE)
    assert torch.equal(moved(positions, torch.zeros(14, dtype=torch.bool), [], 5), positions)


@pytest.fixture
def server(monkeypatch):
    """A module with a class such as those of vLLM."""
    module = types.ModuleType("a_server")

    class Processor:
        limit = 3

        def hashes(self, inputs: object, more: int = 0) -> None: ...

    module.__dict__["Processor"] = Processor
    monkeypatch.setitem(sys.modules, "a_server", module)


def test_functions_that_are_as_expected_pass(server):
    check_seams({"a_server:Processor.hashes": ("inputs",)})


@pytest.mark.parametrize(
    ("name", "wanted", "difference"),
    [
        ("a_server:Processor.hashes", ("items",), r"takes \(inputs, more\), not \(items\)"),
        ("a_server:Processor.hash", ("inputs",), "a_server has no Processor.hash"),
        ("a_server:Processor.limit", (), "Processor.limit is no function"),
        ("another_server:Processor.hashes", (), "there is no module another_server"),
    ],
)
def test_a_server_with_other_functions_is_refused_by_name(server, name, wanted, difference):
    with pytest.raises(UnknownVLLMError, match=rf"^otprune-vllm is made for [^\n]*{difference}$"):
        check_seams({name: wanted})

"""Prefixes that several prompts share, against whole prompts, in every family that allows it."""

import pytest
import torch

from hf.test_encoded import TILES, apart, written
from hf.tiny_vlms import FAMILIES, tiny
from otprune.hf import UnsupportedModelError
from otprune.hf.calls import EncodedCalls, PromptBatch
from otprune.hf.families.family import SHARE_PREFIXES
from otprune.hf.prefixes import keeps_prefixes
from otprune.pruning import Trace, make_pruning

PREFIX_OF = (0, 1, 0, 1, 1)
LENGTHS = (3, 1, 7, 2, 5)
"""Ids of each suffix; one has a single id."""
SHARING = [name for name in FAMILIES if name == "llava_pixtral" or name in SHARE_PREFIXES]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def padded(rows):
    length = max(map(len, rows))
    ids = torch.stack([torch.cat([row.new_zeros(length - len(row)), row]) for row in rows])
    mask = torch.stack([torch.arange(length) >= length - len(row) for row in rows])
    return ids, mask


def parts(name):
    """Return a family's calls, two prefixes, the images of each, and five suffixes."""
    model, inputs, images = tiny(name)
    calls = EncodedCalls(model)
    encoded = calls.encode(apart(name, inputs, images))
    rows = [
        ids[mask.bool()]
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    first = 1 if name in TILES else len(encoded) - 1
    generator = torch.Generator().manual_seed(5)
    suffixes = [torch.randint(10, 400, (n,), generator=generator) for n in LENGTHS]
    return calls, rows, (encoded[:first], encoded[first:]), suffixes


def whole(calls, rows, images, suffixes, pruning, trace):
    prompts = [torch.cat([rows[p], s]) for p, s in zip(PREFIX_OF, suffixes, strict=True)]
    pictures = [one for p in PREFIX_OF for one in images[p]]
    batch = PromptBatch(*padded(prompts), pictures, [None] * len(pictures))
    with calls.call(batch, pruning, trace) as arguments:
        return written(calls.family.model, arguments)


def shared(calls, rows, images, suffixes, pruning, trace):
    pictures = [*images[0], *images[1]]
    batch = PromptBatch(*padded(rows), pictures, [None] * len(pictures))
    arguments = calls.prefixes(batch, pruning, trace).continued(suffixes, PREFIX_OF, 0)
    assert arguments["input_ids"].shape == (5, max(LENGTHS))
    return written(calls.family.model, arguments)


@pytest.mark.parametrize("positions", [None, "compact", "original"])
@pytest.mark.parametrize("name", SHARING)
def test_prompts_go_on_from_a_shared_prefix_as_they_would_alone(name, positions):
    given = parts(name)
    pruning = None
    if positions is not None:
        pruning = make_pruning("divprune", k=7, positions=positions)
        if positions == "compact" and given[0].family.multimodal_positions:
            pytest.skip("positions with several axes are original")
    tokens, scores = whole(*given, pruning, Trace())
    trace = Trace()
    again, found = shared(*given, pruning, trace)
    assert torch.equal(tokens, again)
    assert float((scores - found).abs().max()) <= 1e-5
    assert trace.visual == [len(image) for images in given[2] for image in images]
    # A wrong prefix would be seen: what follows is not decided by the suffix alone.
    assert not torch.equal(shared(*swapped(given), pruning, Trace())[1], found)


def swapped(given):
    calls, rows, images, suffixes = given
    return calls, rows[::-1], images[::-1], suffixes


@pytest.mark.parametrize("name", ["gemma3", "cohere2_vision", "qwen3_5", "lfm2_vl"])
def test_other_families_refuse(name):
    calls, rows, images, _ = parts(name)
    assert not calls.family.shares_prefixes
    pictures = [*images[0], *images[1]]
    with pytest.raises(UnsupportedModelError, match=f"{name} cannot share prefixes"):
        calls.prefixes(PromptBatch(*padded(rows), pictures, [None] * 3), None, Trace())


def test_every_family_that_shares_is_compared():
    assert {name for name in SHARE_PREFIXES if name not in FAMILIES} == set()
    assert {"llava" if name == "llava_pixtral" else name for name in SHARING} == SHARE_PREFIXES


@pytest.mark.parametrize(
    "settings",
    [{"method": "cdpruner", "keep_ratio": 0.4}, {"method": "divprune", "k": 4, "layer": 2}],
)
def test_a_pruning_that_depends_on_what_follows_is_refused(settings):
    calls, rows, images, _ = parts("llava")
    batch = PromptBatch(*padded(rows), [*images[0], *images[1]], [None] * 3)
    with pytest.raises(ValueError, match="decided by images alone"):
        calls.prefixes(batch, make_pruning(**settings), Trace())


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_angles_that_depend_on_the_whole_length_are_no_reason_to_share(kind, monkeypatch):
    model = tiny("llava").model
    assert keeps_prefixes(model.config)
    text = model.config.get_text_config()
    monkeypatch.setattr(text, "rope_parameters", {**text.rope_parameters, "rope_type": kind})
    assert not keeps_prefixes(model.config)
    monkeypatch.setattr(text, "rope_parameters", {"full_attention": {"rope_type": kind}})
    assert not keeps_prefixes(model.config)

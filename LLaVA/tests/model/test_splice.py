"""The splice against a plain loop over rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.splice import splice, split_prompts

D = 4
TABLE = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


@st.composite
def batches(draw):
    """input_ids, attention_mask, labels, visual tokens, kept tokens."""
    rows, images = [], []
    for _ in range(draw(st.integers(1, 4))):
        length = draw(st.integers(1, 8))
        row = draw(st.lists(st.integers(0, 49), min_size=length, max_size=length))
        for _ in range(draw(st.integers(0, 3))):
            row.insert(draw(st.integers(0, len(row))), IMAGE_TOKEN_INDEX)
            images.append(draw(st.integers(1, 6)))
        rows.append(row)
    longest = max(map(len, rows))
    side = draw(st.sampled_from(["left", "right"]))
    ids = torch.full((len(rows), longest), 7)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), None)
        ids[i, place] = torch.tensor(row)
        mask[i, place] = True
    labels = ids.clone().masked_fill(~mask, IGNORE_INDEX)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    visual = [torch.randn(n, D, generator=generator) for n in images]
    kept = [torch.randperm(n, generator=generator)[: draw(st.integers(1, n))] for n in images]
    return ids, mask, labels, visual, kept


def plain(rows, masks, labels, visual, kept, positions):
    """Embeddings, labels and positions of each row, in a loop over its tokens."""
    out, image = [], 0
    for ids, mask, label in zip(rows.tolist(), masks.tolist(), labels.tolist(), strict=True):
        vectors, targets, places, place = [], [], [], 0
        for token, valid, target in zip(ids, mask, label, strict=True):
            if not valid:
                continue
            if token != IMAGE_TOKEN_INDEX:
                vectors.append(TABLE[token])
                targets.append(target)
                places.append(place)
                place += 1
                continue
            for k in kept[image].tolist():
                vectors.append(visual[image][k])
                targets.append(IGNORE_INDEX)
                places.append(place + k)
            place += len(visual[image])
            image += 1
        if positions == "compact":
            places = list(range(len(vectors)))
        out.append((torch.stack(vectors), targets, places))
    return out


@given(
    batch=batches(),
    positions=st.sampled_from(["compact", "original"]),
    side=st.sampled_from(["left", "right"]),
    limit=st.sampled_from([None, 3, 100]),
)
def test_every_row_is_its_text_with_the_kept_tokens_in_place(batch, positions, side, limit):
    ids, mask, labels, visual, kept = batch
    prompts = split_prompts(ids, mask, labels, len(visual))
    got = splice(
        prompts,
        lambda tokens: TABLE[tokens],
        [tokens[keep] for tokens, keep in zip(visual, kept, strict=True)],
        kept,
        [len(tokens) for tokens in visual],
        positions=positions,
        side=side,
        max_length=limit,
        device=torch.device("cpu"),
    )
    want = plain(ids, mask, labels, visual, kept, positions)
    longest = max(min(len(vectors), limit or 99) for vectors, _, _ in want)
    assert got.embeds.shape == (len(ids), longest, D)
    for row, (vectors, targets, places) in enumerate(want):
        length = min(len(vectors), limit or len(vectors))
        assert got.lengths[row] == length
        assert got.truncated[row] == len(vectors) - length
        at = slice(0, length) if side == "right" else slice(longest - length, None)
        assert torch.equal(got.embeds[row, at], vectors[:length])
        assert got.labels[row, at].tolist() == targets[:length]
        assert got.position_ids[row, at].tolist() == places[:length]
        assert got.attention_mask[row].sum() == length
        assert got.attention_mask[row, at].all()
        outside = ~got.attention_mask[row]
        assert (got.embeds[row, outside] == 0).all()
        assert (got.labels[row, outside] == IGNORE_INDEX).all()
        assert (got.position_ids[row, outside] == 0).all()
        assert (got.image_of[row, outside] == -1).all()
        for where, image in enumerate(got.image_of[row].tolist()):
            token = int(got.token_of[row, where])
            assert (image < 0) == (token < 0)
            if image >= 0:
                assert torch.equal(got.embeds[row, where], visual[image][token])
                assert not got.question[row, where]


def test_the_question_is_the_text_after_the_last_image():
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 2, IMAGE_TOKEN_INDEX, 3, 4], [1, 2, 3, 4, 5, 6]])
    prompts = split_prompts(ids, None, None, 2)
    assert prompts[0].question().tolist() == [False] * 4 + [True] * 2
    assert prompts[1].question().all()
    assert [list(prompt.images) for prompt in prompts] == [[0, 1], []]


@pytest.mark.parametrize(
    ("ids", "mask", "labels", "images", "message"),
    [
        ([[1, 2]], None, None, 1, "0 in 1 prompts, got 1 images"),
        ([[1, -200], [-200, -200]], None, None, 2, "3 in 2 prompts, got 2 images"),
        ([[1, -200]], [[1, 0]], None, 1, "0 in 1 prompts, got 1 images"),
        ([[1, 2]], [[0, 0]], None, 0, "row 0 of input_ids holds nothing but padding"),
        ([[1, 2]], [[1]], None, 0, r"attention_mask must have the shape .* got \(1, 1\)"),
        ([[1, 2]], None, [[1]], 0, r"labels must have the shape of input_ids \(1, 2\)"),
        ([1, 2], None, None, 0, r"input_ids must be \[b t\], got shape \(2,\)"),
    ],
)
def test_batches_that_do_not_fit_are_refused(ids, mask, labels, images, message):
    given_ = [None if x is None else torch.tensor(x) for x in (ids, mask, labels)]
    with pytest.raises(ValueError, match=message):
        split_prompts(*given_, images)

"""A batch answers as its rows alone, whatever the prompts, images and budgets."""

import pytest
import torch

from helpers import largest, loaded, padded, visual_of
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from otprune import Selector, make_pruner
from otprune.pruning import Pruning, Stage, Trace, make_pruning

IMAGE = IMAGE_TOKEN_INDEX
ROWS = [
    [1, 20, 21, 22, IMAGE, 30, 31, 32, 33],
    [1, IMAGE, 40, 41, IMAGE, 42],
    [1, 50, 51, 52, 53, 54],
    [1, 60, 61, 62, 63, 64, 65, IMAGE],
]
IMAGES = {
    "checkpoints/tiny-llava-v1.5": ["land", "port", "land", "port"],
    "checkpoints/tiny-llava-v1.6": ["land", "square", "port", "wide"],
}
SETTINGS = {
    "unpruned": None,
    "otprune": make_pruning("otprune", keep_ratio=0.098),
    "divprune, original positions": make_pruning("divprune", keep_ratio=0.05, positions="original"),
    "random": make_pruning("random", k=33),
    "newlines kept": make_pruning("otprune", keep_ratio=0.02, keep_newlines=True),
    "inside": make_pruning("otprune", keep_ratio=0.03, layer=2),
    "inside, compact": make_pruning("uniform", keep_ratio=0.03, layer=1, positions="compact"),
    "before and inside": Pruning(
        (Stage(make_pruner("otprune"), k=90), Stage(make_pruner("divprune"), k=20, layer=3))
    ),
}


def request(checkpoint, rows, first=0, side="right"):
    count = sum(row.count(IMAGE) for row in rows)
    names = IMAGES[checkpoint][first : first + count]
    return padded([torch.tensor(row) for row in rows], side) | {
        "visual": [visual_of(checkpoint, f"images/{name}.png") for name in names],
        "image_ids": list(range(first, first + count)),
    }


def rows_of(checkpoint, setting):
    """Rows of a test: without the one of two images where 1.6 prefills all of their 5000 tokens."""
    whole = setting in ("unpruned", "inside", "inside, compact")
    return [ROWS[0], *ROWS[2:]] if whole and checkpoint.endswith("1.6") else ROWS


def alone(checkpoint, rows=ROWS):
    """Requests of one row each."""
    first = 0
    for row in rows:
        yield request(checkpoint, [row], first)
        first += row.count(IMAGE)


@pytest.mark.parametrize("checkpoint", IMAGES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_logits_of_a_batch_are_those_of_its_rows(checkpoint, setting):
    model, pruning = loaded(checkpoint)[1], SETTINGS[setting]
    rows, trace = rows_of(checkpoint, setting), Trace()
    with torch.no_grad():
        together = model(**request(checkpoint, rows), pruning=pruning, trace=trace).logits
        kept = {layer: iter(one) for layer, one in trace.kept.items()}
        for row, single in enumerate(alone(checkpoint, rows)):
            mine = Trace()
            want = model(**single, pruning=pruning, trace=mine).logits[0]
            assert largest(together[row, : len(want)] - want) <= 1e-5
            assert mine.lengths == [[lengths[row]] for lengths in trace.lengths]
            for layer, images in mine.kept.items():
                for image in images:
                    assert image.tolist() == next(kept[layer]).tolist()


@pytest.mark.parametrize(
    ("checkpoint", "beams"),
    [
        *((checkpoint, 1) for checkpoint in IMAGES),
        ("checkpoints/tiny-llava-v1.5", 2),
        pytest.param("checkpoints/tiny-llava-v1.6", 2, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("setting", SETTINGS)
def test_answers_of_a_batch_are_those_of_its_rows(checkpoint, setting, beams):
    model, pruning = loaded(checkpoint)[1], SETTINGS[setting]
    arguments = {
        "pruning": pruning,
        "max_new_tokens": 6,
        "num_beams": beams,
        "eos_token_id": [9999],  # never
    }
    rows = rows_of(checkpoint, setting)
    together = model.generate(**request(checkpoint, rows), **arguments)
    for answer, single in zip(together.tolist(), alone(checkpoint, rows), strict=True):
        assert model.generate(**single, **arguments)[0].tolist() == answer


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_does_not_matter_on_which_side_prompts_are_padded(setting):
    checkpoint = "checkpoints/tiny-llava-v1.5"
    model, pruning = loaded(checkpoint)[1], SETTINGS[setting]
    answers = [
        model.generate(**request(checkpoint, ROWS, side=side), pruning=pruning, max_new_tokens=4)
        for side in ("left", "right")
    ]
    assert torch.equal(*answers)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_configured_padding_side_holds_for_forward(side, monkeypatch):
    checkpoint = "checkpoints/tiny-llava-v1.5"
    model = loaded(checkpoint)[1]
    monkeypatch.setattr(model.config, "tokenizer_padding_side", side, raising=False)
    for setting in ("otprune", "inside", "inside, compact"):
        with torch.no_grad():
            together = model(**request(checkpoint, ROWS), pruning=SETTINGS[setting]).logits
            for row, single in enumerate(alone(checkpoint)):
                want = model(**single, pruning=SETTINGS[setting]).logits[0]
                at = slice(-len(want), None) if side == "left" else slice(0, len(want))
                assert largest(together[row, at] - want) <= 1e-5


@pytest.mark.parametrize("setting", SETTINGS)
def test_losses_of_a_batch_are_those_of_its_rows(setting, monkeypatch):
    checkpoint = "checkpoints/tiny-llava-v1.6"
    model, pruning = loaded(checkpoint)[1], SETTINGS[setting]
    monkeypatch.setattr(model.config, "tokenizer_model_max_length", 9000)

    def loss(batch):
        labels = batch["input_ids"].masked_fill(~batch["attention_mask"], IGNORE_INDEX)
        labels[labels == IMAGE] = IGNORE_INDEX
        labels[:, 0] = IGNORE_INDEX
        with torch.no_grad():
            value = float(model(**batch, labels=labels, pruning=pruning).loss)
        return value, int((labels != IGNORE_INDEX).sum())

    rows = rows_of(checkpoint, setting)
    parts = [loss(single) for single in alone(checkpoint, rows)]
    together, count = loss(request(checkpoint, rows))
    assert count == sum(n for _, n in parts)
    assert together == pytest.approx(sum(v * n for v, n in parts) / count, abs=1e-5)


@pytest.mark.parametrize(
    ("checkpoint", "positions"),
    [
        ("checkpoints/tiny-llava-v1.5", "compact"),
        ("checkpoints/tiny-llava-v1.5", "original"),
        pytest.param("checkpoints/tiny-llava-v1.6", "compact", marks=pytest.mark.long),
        pytest.param("checkpoints/tiny-llava-v1.6", "original", marks=pytest.mark.long),
    ],
)
def test_keeping_everything_changes_no_bit(checkpoint, positions):
    model = loaded(checkpoint)[1]
    everything = make_pruning("otprune", keep_ratio=1.0, positions=positions)
    rows = rows_of(checkpoint, "unpruned")
    with torch.no_grad():
        plain = model(**request(checkpoint, rows)).logits
        assert torch.equal(model(**request(checkpoint, rows), pruning=everything).logits, plain)
        assert torch.equal(model(**request(checkpoint, rows), pruning=None).logits, plain)


def test_original_positions_move_the_answer():
    checkpoint = "checkpoints/tiny-llava-v1.5"
    model = loaded(checkpoint)[1]
    with torch.no_grad():
        compact, original = (
            model(
                **request(checkpoint, ROWS[:1]),
                pruning=make_pruning("otprune", k=56, positions=positions),
            ).logits[0, -1]
            for positions in ("compact", "original")
        )
    assert largest(compact - original) > 0.05


@pytest.mark.parametrize("use_cache", [True, False])
def test_original_positions_are_no_packed_sequences(use_cache):
    # transformers takes gaps in positions for ends of packed sequences unless a mask is given.
    checkpoint = "checkpoints/tiny-llava-v1.5"
    model = loaded(checkpoint)[1]
    pruning, trace = make_pruning("uniform", k=6, positions="original"), Trace()
    batch = request(checkpoint, ROWS[:1])
    with torch.no_grad():
        logits = model(**batch, pruning=pruning, use_cache=use_cache, trace=trace).logits[0, -1]
        prepared = model.prepare(
            batch["input_ids"], None, None, batch["visual"], pruning=pruning, side="left"
        ).batch
        n = prepared.embeds.shape[1]
        h, rope = prepared.embeds, model.model.rotary_emb(prepared.embeds, prepared.position_ids)
        bias = torch.full((n, n), torch.finfo(torch.float32).min).triu(1)[None, None]
        for layer in model.model.layers:
            h = layer(h, attention_mask=bias, position_embeddings=rope)
        want = model.lm_head(model.model.norm(h))[0, -1]
    places = prepared.position_ids[0].tolist()
    assert places == [0, 1, 2, 3, *(4 + t for t in trace.kept[0][0].tolist()), 580, 581, 582, 583]
    assert largest(logits - want) <= 1e-5


def test_newlines_are_candidates_unless_kept():
    checkpoint = "checkpoints/tiny-llava-v1.6"
    model = loaded(checkpoint)[1]
    batch = request(checkpoint, ROWS[:1])
    newline = batch["visual"][0].newline
    patches, newlines = int((~newline).sum()), int(newline.sum())
    assert (patches, newlines) == (576 + 36 * 48, 36)
    for keep, count in ((False, round(0.02 * 2340)), (True, newlines + round(0.02 * patches))):
        trace = Trace()
        with torch.no_grad():
            model(
                **batch, trace=trace,
                pruning=make_pruning("otprune", keep_ratio=0.02, keep_newlines=keep),
            )  # fmt: skip
        kept = trace.kept[0][0]
        assert len(kept) == count
        assert bool(newline[kept].sum() == newlines) == keep
        assert kept.tolist() == sorted(kept.tolist())


class Greedy(Selector):
    """Needs signals of image and text, and remembers what it got."""

    __slots__ = ("seen",)
    needs = frozenset({"cls_attention", "text_embeddings"})

    def __init__(self):
        self.seen = []

    def _rank_image(self, tokens, k, signals):
        self.seen.append((tokens, signals))
        return signals.cls_attention.mean(0).argsort(descending=True)[:k]


@pytest.mark.parametrize("layer", [0, 2])
def test_selectors_get_the_signals_that_they_need(layer):
    checkpoint = "checkpoints/tiny-llava-v1.5"
    model = loaded(checkpoint)[1]
    batch, method, trace = request(checkpoint, ROWS), Greedy(), Trace()
    with torch.no_grad():
        model(**batch, pruning=make_pruning(method, k=5, layer=layer), trace=trace)
    assert len(method.seen) == 4
    for number, ((_, signals), image) in enumerate(zip(method.seen, batch["visual"], strict=True)):
        assert torch.equal(signals.cls_attention, image.signals.cls_attention)
        assert signals.grid == (24, 24)
        assert signals.image_id == number
        best = image.signals.cls_attention.mean(0).topk(5).indices
        assert set(trace.kept[layer][number].tolist()) == set(best.tolist())
    text = [signals.text_embeddings for _, signals in method.seen]
    # Text after the row's last image: 4 words, 1, 1, and none after an image at the end.
    assert [len(one) for one in text] == [4, 1, 1, 0]
    questions = [ROWS[0][5:], ROWS[1][5:], ROWS[1][5:], []]
    if layer == 0:
        vectors = [
            model.model.embed_tokens(torch.tensor(ids, dtype=torch.long)) for ids in questions
        ]
    else:
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True).hidden_states[layer]
        # forward pads on the right; the question ends each row.
        ends = [4 + 576 + 4, 1 + 576 + 2 + 576 + 1]
        vectors = [
            states[0, ends[0] - 4 : ends[0]],
            states[1, ends[1] - 1 : ends[1]],
            states[1, ends[1] - 1 : ends[1]],
            states[3, :0],
        ]
    for mine, want in zip(text, vectors, strict=True):
        assert torch.allclose(mine, want, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 2])
def test_an_image_that_was_cut_off_keeps_its_place_in_the_trace(layer):
    checkpoint = "checkpoints/tiny-llava-v1.6"
    model = loaded(checkpoint)[1]
    image = visual_of(checkpoint, "images/land.png")
    batch = padded([torch.tensor([1, *[IMAGE] * 4, 5]), torch.tensor([1, IMAGE, 7])])
    trace = Trace()
    with torch.no_grad():
        model(
            **batch,
            visual=[image] * 5,
            pruning=make_pruning("uniform", k=2000, layer=layer),
            trace=trace,
        )
    kept = [len(one) for one in trace.kept[layer]]
    assert kept == ([2000] * 5 if layer == 0 else [2000, 4095 - 2340, 0, 0, 2000])


def test_signals_shrink_with_the_tokens():
    checkpoint = "checkpoints/tiny-llava-v1.6"
    model = loaded(checkpoint)[1]
    batch, method = request(checkpoint, ROWS[:1]), Greedy()
    stages = (Stage(make_pruner("uniform"), k=100), Stage(method, k=7, layer=2))
    trace = Trace()
    with torch.no_grad():
        model(**batch, pruning=Pruning(stages), trace=trace)
    tokens, signals = method.seen[0]
    kept = trace.kept[0][0]
    assert len(tokens) == 100
    assert torch.equal(signals.cls_attention, batch["visual"][0].signals.cls_attention[:, kept])
    assert set(trace.kept[2][0].tolist()) < set(kept.tolist())
    assert signals.grid is None


def test_generate_goes_on_from_a_filled_cache():
    checkpoint = "checkpoints/tiny-llava-v1.5"
    model, pruning = loaded(checkpoint)[1], SETTINGS["otprune"]
    rows = [ROWS[0], ROWS[0][:5] + [44, 45]]
    given = request(checkpoint, [ROWS[0][:5]])
    settings = {"max_new_tokens": 4, "do_sample": False}
    with torch.no_grad():
        cache = model(**given, pruning=pruning, use_cache=True).past_key_values
        cached = cache.get_seq_length()
        cache.batch_repeat_interleave(2)
        rest = padded([torch.tensor(row[5:]) for row in rows], "left")
        mask = torch.cat([torch.ones(2, cached), rest["attention_mask"]], dim=1)
        found = model.generate(
            rest["input_ids"], attention_mask=mask, past_key_values=cache, **settings
        )
        assert torch.equal(found[:, :4], rest["input_ids"])
        for row, answer in zip(rows, found[:, 4:], strict=True):
            whole = model.generate(
                torch.tensor([row]), visual=given["visual"], image_ids=given["image_ids"],
                pruning=pruning, **settings,
            )  # fmt: skip
            assert torch.equal(whole[0], answer)
        with pytest.raises(ValueError, match="images go with the prompt's ids"):
            model.generate(rest["input_ids"], visual=given["visual"], past_key_values=cache)

"""Dropping tokens inside the language model against masking them, written out layer by layer."""

import threading

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, StaticCache
from transformers.masking_utils import flash_attention_mask

from helpers import V15, largest, loaded, padded, visual_of
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.builder import load_pretrained_model
from llava.pruning import Pruning, Stage, Trace, prune
from otprune import make_pruner

CKPT = "checkpoints/tiny-llava-v1.5"
LAYERS = 4
IMAGE = IMAGE_TOKEN_INDEX
ROWS = [
    [1, 20, 21, 22, IMAGE, 30, 31, 32, 33],
    [1, IMAGE, 40, 41, IMAGE, 42],
    [1, 50, 51, 52, 53, 54],
    [1, 60, 61, 62, 63, 64, 65, IMAGE],
]
STAGES = {
    "one": (Stage(make_pruner("otprune"), k=40, layer=2),),
    "first layer": (Stage(make_pruner("divprune"), keep_ratio=0.05, layer=1),),
    "last layer": (Stage(make_pruner("uniform"), k=7, layer=3),),
    "three": (
        Stage(make_pruner("herding"), keep_ratio=0.5, layer=1),
        Stage(make_pruner("otprune"), keep_ratio=0.1, layer=2),
        Stage(make_pruner("random"), k=9, layer=3),
    ),
    "before and inside": (
        Stage(make_pruner("otprune"), k=100),
        Stage(make_pruner("divprune"), k=20, layer=2),
    ),
}


def images(count: int):
    names = ("images/land.png", "images/port.png")
    return [visual_of(CKPT, names[i % 2]) for i in range(count)]


def request(rows=ROWS, side="left"):
    count = sum(row.count(IMAGE) for row in rows)
    return padded([torch.tensor(row) for row in rows], side) | {
        "visual": images(count),
        "image_ids": list(range(count)),
    }


def model_of(attention: str = "sdpa"):
    model = loaded(CKPT)[1]
    model.set_attn_implementation(attention)
    return model


@pytest.fixture(autouse=True)
def sdpa_afterwards():
    yield
    loaded(CKPT)[1].set_attn_implementation("sdpa")


class Masked:
    """One prompt with nothing dropped: at each layer, dropped tokens are hidden from all others."""

    def __init__(self, model, row, visual, kept_by_layer, positions):
        self.model = model
        batch = model.prepare(
            torch.tensor([row]), None, None, visual, pruning=None, side="left"
        ).batch
        self.embeds = batch.embeds
        image_of, token_of = batch.image_of[0], batch.token_of[0]
        alive = torch.ones(len(image_of), dtype=torch.bool)
        self.alive, self.places = [], []
        place = torch.arange(len(alive))
        for layer in range(LAYERS):
            if layer in kept_by_layer:
                for image, kept in enumerate(kept_by_layer[layer]):
                    mine = image_of == image
                    alive &= ~mine | torch.isin(token_of, kept)
                compact = positions or ("compact" if layer == 0 else "original")
                if compact == "compact":
                    place = (alive.cumsum(0) - 1).clamp(min=0)
            self.alive.append(alive.clone())
            self.places.append(place)

    @torch.no_grad()
    def logits(self, new=()):
        """Logits at the last position that is left, after some decoded tokens."""
        embed = self.model.model.embed_tokens
        h = self.embeds
        if len(new):
            h = torch.cat([h, embed(torch.tensor([list(new)]))], 1)
        n = h.shape[1]
        for layer, block in enumerate(self.model.model.layers):
            more = torch.arange(1, len(new) + 1)
            # Of a prompt that ends with an image, what goes on is the last token that entered.
            end = self.places[layer][self.alive[0]].max()
            place = torch.cat([self.places[layer], end + more])
            seen = torch.cat([self.alive[layer], torch.ones(len(new), dtype=torch.bool)])
            see = torch.ones(n, n, dtype=torch.bool).tril() & seen | torch.eye(n, dtype=torch.bool)
            bias = torch.zeros(1, 1, n, n).masked_fill(~see, torch.finfo(torch.float32).min)
            rope = self.model.model.rotary_emb(h, place[None])
            h = block(h, attention_mask=bias, position_embeddings=rope)
        last = -1 if len(new) else int(self.alive[-1].nonzero()[-1])
        return self.model.lm_head(self.model.model.norm(h))[0, last]

    def greedy(self, count: int) -> list[int]:
        new: list[int] = []
        for _ in range(count):
            new.append(int(self.logits(new).argmax()))
        return new


def masked_rows(model, pruning, trace, rows=ROWS):
    """The masked reference of each row, hiding what the trace says was dropped."""
    references, first = [], 0
    for row in rows:
        count = row.count(IMAGE)
        mine = {layer: kept[first : first + count] for layer, kept in trace.kept.items()}
        visual = request(rows)["visual"][first : first + count]
        references.append(Masked(model, row, visual, mine, pruning.positions))
        first += count
    return references


SHAPES: list[tuple] = []


def flash_like(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """What flash attention computes from a 2-D mask: causal, aligned at the last position."""
    SHAPES.append((query.shape[2], key.shape[2], attention_mask is not None))
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    t, s = query.shape[2], key.shape[2]
    see = torch.ones(t, s, dtype=torch.bool).tril(s - t)[None, None]
    if attention_mask is not None:
        assert attention_mask.shape == (len(query), s)
        see = see & attention_mask.bool()[:, None, None]
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~see, torch.finfo(query.dtype).min)
    return (scores.softmax(-1) @ value).transpose(1, 2), None


AttentionInterface.register("masked_2d", flash_like)
AttentionMaskInterface.register("masked_2d", flash_attention_mask)


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("positions", [None, "compact", "original"])
@pytest.mark.parametrize("attention", ["sdpa", "eager", "masked_2d"])
def test_dropping_is_masking(stages, positions, attention):
    model = model_of(attention)
    pruning = Pruning(STAGES[stages], positions)
    trace = Trace()
    with torch.no_grad():
        logits = model(**request(), pruning=pruning, trace=trace).logits
    assert logits.shape[1] == max(trace.lengths[-1])
    model_of("sdpa")
    references = masked_rows(model, pruning, trace)
    for row, reference in enumerate(references):
        last = trace.lengths[-1][row] - 1  # forward pads on the right
        assert largest(logits[row, last] - reference.logits()) <= 1e-5
    model_of(attention)
    tokens = model.generate(**request(), pruning=pruning, max_new_tokens=5, eos_token_id=[999999])
    model_of("sdpa")
    assert tokens.tolist() == [reference.greedy(5) for reference in references]


def test_flash_attention_is_given_two_dimensional_masks_of_each_layer_s_length():
    model = model_of("masked_2d")
    SHAPES.clear()
    model.generate(**request(), pruning=prune("uniform", k=10, layer=2), max_new_tokens=2)
    assert SHAPES == [(1156, 1156, True)] * 2 + [(24, 24, True)] * 2 + [
        (1, 1157, True)
    ] * 2 + [(1, 25, True)] * 2  # fmt: skip


def test_dropping_moves_the_answer():
    model = model_of()
    with torch.no_grad():
        full = model(**request(ROWS[:1])).logits[0, -1]
        pruned = model(**request(ROWS[:1]), pruning=prune("otprune", k=9, layer=2)).logits[0, -1]
    assert largest(full - pruned) > 0.05


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("method", ["otprune", "divprune", "w2greedy"])
def test_selectors_see_the_hidden_states_at_the_layer_s_input(layer, method):
    model = model_of()
    batch = request(ROWS[:1])
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states[layer]
        trace = Trace()
        model(**batch, pruning=prune(method, k=30, layer=layer), trace=trace)
    tokens = states[0, 4 : 4 + 576]
    want = make_pruner(method).select(tokens, 30)
    assert trace.kept[layer][0].tolist() == want.tolist()
    assert trace.visual == [576]


def test_each_layer_caches_what_it_was_given():
    model = model_of()
    cache = DynamicCache(config=model.config)
    pruning, trace = Pruning(STAGES["three"]), Trace()
    model.generate(
        **request(ROWS[:1]), pruning=pruning, past_key_values=cache, max_new_tokens=4,
        eos_token_id=[999999], trace=trace,
    )  # fmt: skip
    text = len(ROWS[0]) - 1
    want = [text + 576, text + 288, text + 58, text + 9]
    assert trace.lengths == [[n] for n in want]
    assert [layer.get_seq_length() for layer in cache.layers] == [n + 3 for n in want]


def test_a_ragged_batch_caches_the_longest_row_of_each_layer():
    model = model_of()
    cache = DynamicCache(config=model.config)
    trace = Trace()
    with torch.no_grad():
        model(
            **request(), pruning=prune("uniform", k=10, layer=2), past_key_values=cache, trace=trace
        )
    full = [584, 1156, 6, 583]
    pruned = [18, 24, 6, 17]
    assert trace.lengths == [full, full, pruned, pruned]
    assert [layer.get_seq_length() for layer in cache.layers] == [1156, 1156, 24, 24]


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_keeping_everything_changes_no_bit(positions):
    model = model_of()
    for rows in (ROWS[:1], ROWS):
        with torch.no_grad():
            plain = model(**request(rows)).logits
            pruning = prune("otprune", keep_ratio=1.0, layer=2, positions=positions)
            trace = Trace()
            everything = model(**request(rows), pruning=pruning, trace=trace).logits
        for row, length in enumerate(trace.lengths[-1]):
            assert torch.equal(plain[row, :length], everything[row, :length])


def test_prompts_without_images_change_no_bit():
    model = model_of()
    rows = [ROWS[2], [1, 70, 71]]
    pruning = prune("otprune", k=3, layer=2)
    with torch.no_grad():
        assert torch.equal(
            model(**request(rows)).logits, model(**request(rows), pruning=pruning).logits
        )


@pytest.mark.parametrize("stages", ["one", "before and inside"])
@pytest.mark.parametrize("positions", ["compact", "original"])
def test_beams_are_scored_as_the_masked_model_scores_them(stages, positions):
    model = model_of()
    pruning, trace = Pruning(STAGES[stages], positions), Trace()
    out = model.generate(
        **request(), pruning=pruning, max_new_tokens=4, num_beams=3, num_return_sequences=3,
        eos_token_id=[999999], return_dict_in_generate=True, output_scores=True, trace=trace,
    )  # fmt: skip
    references = masked_rows(model, pruning, trace)
    assert out.sequences.shape == (3 * len(ROWS), 4)
    for number, sequence in enumerate(out.sequences.tolist()):
        reference = references[number // 3]
        logp = sum(
            float(reference.logits(sequence[:i]).log_softmax(-1)[token])
            for i, token in enumerate(sequence)
        )
        assert float(out.sequences_scores[number]) == pytest.approx(logp / 4, abs=1e-5)


def test_labels_are_dropped_with_their_tokens():
    model = model_of()
    pruning = prune("otprune", k=12, layer=2)
    for rows in (ROWS, ROWS[1:2]):
        batch = request(rows)
        labels = batch["input_ids"].masked_fill(~batch["attention_mask"], IGNORE_INDEX)
        labels[labels == IMAGE] = IGNORE_INDEX
        trace = Trace()
        with torch.no_grad():
            loss = model(**batch, labels=labels, pruning=pruning, trace=trace).loss
            logits = model(**batch, pruning=pruning).logits
        # A plain mean over all positions that predict a text token.
        terms = []
        for row, ids in enumerate(rows):
            targets, place = [], 0
            for token in ids:
                if token == IMAGE:
                    place += 12
                    continue
                targets.append((place, token))
                place += 1
            terms += [
                -float(logits[row, place - 1].log_softmax(-1)[token])
                for place, token in targets
                if place > 0
            ]
        assert float(loss) == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_a_loop_of_one_s_own_decodes_as_generate():
    model = model_of()
    pruning = prune("otprune", k=12, layer=2, positions="compact")
    want = model.generate(
        **request(ROWS[:1]), pruning=pruning, max_new_tokens=5, eos_token_id=[999999]
    )
    with torch.no_grad():
        out = model(**request(ROWS[:1]), pruning=pruning, use_cache=True)
        tokens = [out.logits[:, -1:].argmax(-1)]
        for _ in range(4):
            out = model(input_ids=tokens[-1], past_key_values=out.past_key_values)
            tokens.append(out.logits[:, -1:].argmax(-1))
    assert torch.cat(tokens, 1).tolist() == want.tolist()


def test_without_a_cache_the_logits_are_the_same():
    model = model_of()
    pruning = Pruning(STAGES["three"], "original")
    with torch.no_grad():
        with_cache = model(**request(), pruning=pruning, use_cache=True)
        without = model(**request(), pruning=pruning, use_cache=False)
    assert without.past_key_values is None
    assert torch.equal(with_cache.logits, without.logits)


def test_threads_do_not_mix():
    model = model_of()
    settings = [None, prune("otprune", k=20, layer=2), prune("divprune", k=50, layer=1)]
    batch = request(ROWS[:1])

    def answer(pruning):
        with torch.no_grad():
            return model.generate(**batch, pruning=pruning, max_new_tokens=6, do_sample=False)

    alone = [answer(pruning).tolist() for pruning in settings]
    together: dict[int, list] = {}
    threads = [
        threading.Thread(target=lambda i=i: together.update({i: answer(settings[i % 3]).tolist()}))
        for i in range(9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(9)] == alone * 3


def test_an_error_leaves_nothing_behind():
    model = model_of()
    batch = request(ROWS[:1])
    with torch.no_grad():
        want = model(**batch).logits

        class Broken(type(make_pruner("first_k"))):
            def _rank_image(self, tokens, k, signals):
                raise ArithmeticError("no")

        with pytest.raises(ArithmeticError, match="no"):
            model(**batch, pruning=prune(Broken(), k=3, layer=2))
        assert torch.equal(model(**batch).logits, want)


def test_a_pruned_model_can_be_copied_and_saved(tmp_path):
    model = load_pretrained_model(V15, device="cpu", pruning=prune("otprune", k=9, layer=2))[1]
    torch.save(model, tmp_path / "model.pt")
    other = torch.load(tmp_path / "model.pt", weights_only=False)
    with torch.no_grad():
        assert torch.equal(model(**request()).logits, other(**request()).logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_implementation": "static"}, "does not go with cache_implementation='static'"),
        ({"prompt_lookup_num_tokens": 3}, "does not go with prompt_lookup_num_tokens=3"),
        ({"prefill_chunk_size": 8}, "does not go with prefill_chunk_size=8"),
        ({"assistant_model": "any"}, "does not go with assistant_model='any'"),
    ],
)
def test_ways_of_generating_that_cut_caches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        model_of().generate(**request(), pruning=prune("otprune", k=9, layer=2), **arguments)


def test_caches_that_cannot_be_ragged_or_are_not_empty_are_refused():
    model = model_of()
    pruning = prune("otprune", k=9, layer=2)
    static = StaticCache(config=model.config, max_cache_len=700)
    with pytest.raises(ValueError, match="needs a DynamicCache, .* got StaticCache"):
        model(**request(ROWS[:1]), pruning=pruning, past_key_values=static)
    used = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 2, 3]]), past_key_values=used)
        with pytest.raises(ValueError, match="the cache holds 3 positions already"):
            model.generate(**request(ROWS[:1]), pruning=pruning, past_key_values=used)

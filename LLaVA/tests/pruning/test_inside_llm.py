"""Dropping tokens inside the language model against masking them, written out layer by layer."""

import threading

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import flash_attention_mask

from helpers import V15, largest, loaded
from llava.constants import IGNORE_INDEX
from llava.model.builder import load_pretrained_model
from masked import CKPT, IMAGE, ROWS, STAGES, masked_rows, model_of, request
from otprune import make_pruner
from otprune.pruning import Pruning, Trace, make_pruning


@pytest.fixture(autouse=True)
def sdpa_afterwards():
    yield
    loaded(CKPT)[1].set_attn_implementation("sdpa")


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


@pytest.mark.parametrize("attention", ["sdpa", "eager", "masked_2d"])
@pytest.mark.parametrize(
    "positions", [pytest.param(None, marks=pytest.mark.long), "compact", "original"]
)
@pytest.mark.parametrize("stages", STAGES)
def test_dropping_is_masking(stages, positions, attention):
    model = model_of(attention)
    pruning = Pruning(STAGES[stages], positions)
    trace = Trace()
    # Attention written out takes four times as long for the row of two images.
    rows = ROWS if attention == "sdpa" else [ROWS[0], *ROWS[2:]]
    with torch.no_grad():
        logits = model(**request(rows), pruning=pruning, trace=trace).logits
    assert logits.shape[1] == max(trace.lengths[-1])
    model_of("sdpa")
    references = masked_rows(model, pruning, trace, rows)
    for row, reference in enumerate(references):
        last = trace.lengths[-1][row] - 1  # forward pads on the right
        assert largest(logits[row, last] - reference.logits()[0]) <= 1e-5
    model_of(attention)
    asked = request(rows) | {"pruning": pruning, "trace": trace}
    tokens = model.generate(**asked, max_new_tokens=5, eos_token_id=[999999])
    model_of("sdpa")
    # Padded on the other side, hidden states round otherwise, and a near tie may fall otherwise.
    references = masked_rows(model, pruning, trace, rows)
    for answer, reference in zip(tokens.tolist(), references, strict=True):
        assert len(answer) == 5
        assert reference.chooses(answer)


def test_flash_attention_is_given_two_dimensional_masks_of_each_layer_s_length():
    model = model_of("masked_2d")
    SHAPES.clear()
    model.generate(**request(), pruning=make_pruning("uniform", k=10, layer=2), max_new_tokens=2)
    assert SHAPES == [(1156, 1156, True)] * 2 + [(24, 24, True)] * 2 + [
        (1, 1157, True)
    ] * 2 + [(1, 25, True)] * 2  # fmt: skip


def test_dropping_moves_the_answer():
    model = model_of()
    with torch.no_grad():
        full = model(**request(ROWS[:1])).logits[0, -1]
        pruned = model(**request(ROWS[:1]), pruning=make_pruning("otprune", k=9, layer=2)).logits[
            0, -1
        ]
    assert largest(full - pruned) > 0.05


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("method", ["otprune", "divprune", "w2greedy"])
def test_selectors_see_the_hidden_states_at_the_layer_s_input(layer, method):
    model = model_of()
    batch = request(ROWS[:1])
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states[layer]
        trace = Trace()
        model(**batch, pruning=make_pruning(method, k=30, layer=layer), trace=trace)
    tokens = states[0, 4 : 4 + 576]
    want = make_pruner(method).select(tokens, 30)
    assert trace.kept[layer][0].tolist() == want.tolist()
    assert trace.visual == [576]


@pytest.mark.parametrize("method", ["otprune", "herding"])
def test_under_autocast_a_selector_keeps_what_it_would_keep_of_these_states(method):
    model, batch = model_of(), request(ROWS[:1])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = model(**batch, output_hidden_states=True).hidden_states[2]
        trace = Trace()
        model(**batch, pruning=make_pruning(method, k=30, layer=2), trace=trace)
    want = make_pruner(method).select(states[0, 4 : 4 + 576], 30)
    assert trace.kept[2][0].tolist() == want.tolist()


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
            **request(),
            pruning=make_pruning("uniform", k=10, layer=2),
            past_key_values=cache,
            trace=trace,
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
            pruning = make_pruning("otprune", keep_ratio=1.0, layer=2, positions=positions)
            trace = Trace()
            everything = model(**request(rows), pruning=pruning, trace=trace).logits
        for row, length in enumerate(trace.lengths[-1]):
            assert torch.equal(plain[row, :length], everything[row, :length])


def test_prompts_without_images_change_no_bit():
    model = model_of()
    rows = [ROWS[2], [1, 70, 71]]
    pruning = make_pruning("otprune", k=3, layer=2)
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
        steps = reference.logits(sequence[:-1]).log_softmax(-1)
        logp = float(steps.gather(1, torch.tensor(sequence)[:, None]).sum())
        assert float(out.sequences_scores[number]) == pytest.approx(logp / 4, abs=1e-5)


def test_labels_are_dropped_with_their_tokens():
    model = model_of()
    pruning = make_pruning("otprune", k=12, layer=2)
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
    pruning = make_pruning("otprune", k=12, layer=2, positions="compact")
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
    settings = [
        None,
        make_pruning("otprune", k=20, layer=2),
        make_pruning("divprune", k=50, layer=1),
    ]
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
            model(**batch, pruning=make_pruning(Broken(), k=3, layer=2))
        assert torch.equal(model(**batch).logits, want)


def test_a_pruned_model_can_be_copied_and_saved(tmp_path):
    model = load_pretrained_model(V15, device="cpu", pruning=make_pruning("otprune", k=9, layer=2))[
        1
    ]
    torch.save(model, tmp_path / "model.pt")
    other = torch.load(tmp_path / "model.pt", weights_only=False)
    with torch.no_grad():
        assert torch.equal(model(**request()).logits, other(**request()).logits)

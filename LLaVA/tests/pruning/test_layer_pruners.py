"""Layer pruners inside the model against tokens masked or a prompt recomputed in plain loops."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from transformers import DynamicCache

from helpers import largest, loaded
from llava.constants import IGNORE_INDEX
from masked import CKPT, ROWS, masked_rows, model_of
from otprune import Kept, LayerPruner
from otprune.pruning import Pruning, Trace, make_pruning
from recomputed import recompute, shape_of
from small_images import IMAGE, SCHEDULED, alone, small_image, small_request

NEVER = {"eos_token_id": [999999], "do_sample": False}
PICTURES = [row for row in ROWS if IMAGE in row]


@dataclass(frozen=True, slots=True)
class Means(LayerPruner):
    """Keeps the longest tokens and appends the means of every other dropped one."""

    positions: ClassVar = "original"
    looks_back: ClassVar[bool] = True
    starts: ClassVar[bool] = True
    schedule: str = "1:0.6/3:0.3"

    @property
    def observes(self):
        return frozenset({0, 1, 2, 3})

    def observe(self, modules):
        if modules.layer == 3:
            raise ArithmeticError("the last point is at layer 3")
        return modules.attention_out.norm(dim=-1) * modules.feed_forward_out.norm(dim=-1)

    def appended(self, dropped):
        return min(dropped, 2)

    def start(self, view):
        return view.hidden[view.visual].norm(dim=1).mean()

    def _prune(self, view, k):
        attended = view.probe.attention(view.layer - 1, view.visual).sum((0, 1))[view.visual]
        scores = view.accumulated[view.visual] * attended + view.started
        order = scores.argsort(descending=True, stable=True)
        left = order[k:]
        dropped = view.hidden[view.visual[left]]
        merged = torch.stack([dropped[i::2].mean(0) for i in range(self.appended(len(left)))])
        return Kept(order[:k], merged, scores)


MERGING = {
    "sparsevlm 1.5": make_pruning("sparsevlm", schedule="1:0.6/2:0.5/3:0.2"),
    "sparsevlm 1.5, original": make_pruning(
        "sparsevlm", schedule="1:0.6/3:0.2", per_cluster=4, positions="original"
    ),
    "means": Pruning((), pruner=Means()),
    "means, compact": Pruning((), pruner=Means(), positions="compact"),
    "means of everything": Pruning((), pruner=Means("2:0")),
}
EVERY = SCHEDULED | MERGING


@pytest.fixture(autouse=True)
def sdpa_afterwards():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    loaded(CKPT)[1].set_attn_implementation("sdpa")


def run(model, pruning, rows=ROWS, **more):
    """Trace, and the logits of each row at its last position."""
    trace = Trace()
    request = more.pop("request", None) or small_request(rows, more.pop("side", "left"))
    with torch.no_grad():
        logits = model(**request, pruning=pruning, trace=trace, **more).logits
    ends = [length - 1 for length in trace.lengths[-1]]
    return trace, torch.stack([logits[row, end] for row, end in enumerate(ends)])


def lists(kept):
    return {layer: [one.tolist() for one in images] for layer, images in kept.items()}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("setting", SCHEDULED)
def test_dropping_by_a_schedule_is_masking(setting, attention):
    model, pruning = model_of(attention), SCHEDULED[setting]
    trace, last = run(model, pruning)
    decoding = Trace()
    asked = small_request(ROWS) | {"pruning": pruning, "trace": decoding}
    tokens = model.generate(**asked, max_new_tokens=4, **NEVER)
    model_of("sdpa")
    visual = small_request(ROWS)["visual"]
    references = masked_rows(model, pruning, trace, visual=visual)
    for row, reference in enumerate(references):
        assert largest(last[row] - reference.logits()[0]) <= 1e-5
    # Padded on the other side, hidden states round otherwise, and a near tie may fall otherwise.
    references = masked_rows(model, pruning, decoding, visual=visual)
    for answer, reference in zip(tokens.tolist(), references, strict=True):
        assert len(answer) == 4
        assert reference.chooses(answer)


@pytest.mark.parametrize("setting", EVERY)
def test_every_prompt_is_what_plain_loops_make_of_it(setting):
    model, pruning = model_of(), EVERY[setting]
    for request, row in zip(alone(ROWS), ROWS, strict=True):
        if IMAGE not in row:
            continue
        trace, last = run(model, pruning, request=request)
        arguments = request["input_ids"], None, None, request["visual"]
        batch = model.prepare(*arguments, pruning=pruning, side="left").batch
        want = recompute(model, pruning, row, request["visual"], batch)
        kept = lists(trace.kept)
        kept.pop(0, None)
        assert kept == want.kept
        assert trace.lengths == [[len(hidden)] for hidden, _ in want.inputs.values()]
        assert largest(last[0] - want.logits[-1]) <= 1e-5
        tokens = model.generate(**request, pruning=pruning, max_new_tokens=4, **NEVER)
        assert tokens[0].tolist() == want.greedy(4)


@pytest.mark.parametrize("setting", [*list(SCHEDULED)[::3], *list(MERGING)[::2]])
def test_it_runs_under_autocast_too(setting):
    model, pruning = model_of(), EVERY[setting]
    plain, _ = run(model, pruning)
    with torch.autocast("cpu", torch.bfloat16):
        trace, last = run(model, pruning)
    assert trace.lengths == plain.lengths
    assert last.isfinite().all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("setting", EVERY)
def test_a_batch_is_its_rows_alone(setting, side):
    model, pruning = model_of(), EVERY[setting]
    request = small_request(ROWS, side)
    trace, last = run(model, pruning, request=request)
    tokens = model.generate(**request, pruning=pruning, max_new_tokens=3, **NEVER)
    image = 0
    for row, one in enumerate(alone(ROWS)):
        own, logits = run(model, pruning, request=one)
        count = len(one["visual"])
        for layer, kept in own.kept.items():
            theirs = trace.kept[layer][image : image + count]
            assert [k.tolist() for k in kept] == [k.tolist() for k in theirs]
        image += count
        assert [n for (n,) in own.lengths] == [lengths[row] for lengths in trace.lengths]
        assert largest(last[row] - logits[0]) <= 1e-5
        alone_tokens = model.generate(**one, pruning=pruning, max_new_tokens=3, **NEVER)
        assert tokens[row].tolist() == alone_tokens[0].tolist()


@pytest.mark.parametrize("setting", EVERY)
def test_each_layer_gets_as_many_tokens_as_the_settings_say(setting):
    model, pruning = model_of(), EVERY[setting]
    model.check_pruning(pruning)
    for request, row in zip(alone(ROWS), ROWS, strict=True):
        trace, _ = run(model, pruning, request=request)
        text = len(row) - row.count(IMAGE)
        each = [pruning.tokens_by_layer(len(one), shape_of(model)) for one in request["visual"]]
        want = [text + sum(one[layer] for one in each) for layer in range(4)]
        assert [n for (n,) in trace.lengths] == want


@pytest.mark.parametrize("setting", EVERY)
def test_a_cache_changes_nothing(setting):
    model, pruning = model_of(), EVERY[setting]
    with torch.no_grad():
        cached = model(**small_request(ROWS), pruning=pruning, use_cache=True)
        without = model(**small_request(ROWS), pruning=pruning, use_cache=False)
    assert without.past_key_values is None
    assert torch.equal(cached.logits, without.logits)


@pytest.mark.parametrize("setting", EVERY)
def test_each_layer_caches_what_it_was_given_and_no_more(setting):
    model, pruning = model_of(), EVERY[setting]
    cache, trace = DynamicCache(config=model.config), Trace()
    model.generate(
        **small_request(ROWS[:1]), pruning=pruning, past_key_values=cache, max_new_tokens=3,
        trace=trace, **NEVER,
    )  # fmt: skip
    assert [one.get_seq_length() for one in cache.layers] == [n + 2 for (n,) in trace.lengths]


@pytest.mark.parametrize("setting", ["transprune", "vtw", "sparsevlm 1.5", "means"])
def test_beams_are_scored_as_plain_loops_score_them(setting):
    model, pruning = model_of(), EVERY[setting]
    out = model.generate(
        **small_request(PICTURES), pruning=pruning, max_new_tokens=3, num_beams=2,
        num_return_sequences=2, return_dict_in_generate=True, output_scores=True, **NEVER,
    )  # fmt: skip
    references = []
    for request, row in zip(alone(PICTURES), PICTURES, strict=True):
        arguments = request["input_ids"], None, None, request["visual"]
        batch = model.prepare(*arguments, pruning=pruning, side="left").batch
        references.append(recompute(model, pruning, row, request["visual"], batch))
    for number, sequence in enumerate(out.sequences.tolist()):
        reference = references[number // 2]
        steps = [reference.logits[-1], *(reference.decode(sequence[:i]) for i in (1, 2))]
        logp = sum(
            float(step.log_softmax(-1)[token]) for step, token in zip(steps, sequence, strict=True)
        )
        assert float(out.sequences_scores[number]) == pytest.approx(logp / 3, abs=1e-5)


@pytest.mark.parametrize("setting", EVERY)
def test_a_plan_that_keeps_everything_changes_no_bit(setting):
    model, pruner = model_of(), EVERY[setting].pruner
    plain = model(**small_request(ROWS)).logits.detach()
    settings = {"observe_from": 0, "observe_to": 2} if "transprune" in setting else {}
    schedule = "1:1.0/2:1.0" if "tops" not in setting else "0:1.0/1:1.0"
    if setting == "vtw":
        everything = make_pruning("vtw", schedule="2:0", keep_ratio=1.0)
    elif "sparsevlm" in setting:  # its own schedule always drops something
        everything = make_pruning("sparsevlm", schedule="1:0.6/2:0.5", keep_ratio=1.0)
    else:
        everything = Pruning((), pruner=type(pruner)(schedule=schedule, **settings))
    trace = Trace()
    with torch.no_grad():
        logits = model(**small_request(ROWS), pruning=everything, trace=trace).logits
    for row, length in enumerate(trace.lengths[-1]):
        assert torch.equal(plain[row, :length], logits[row, :length])


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("row", ["question", "no question"])
@pytest.mark.parametrize("setting", EVERY)
def test_nothing_is_chosen_by_a_given_answer(setting, row, labelled):
    model, pruning = model_of(), EVERY[setting]
    prompt = {"question": PICTURES[1], "no question": PICTURES[2]}[row]
    want, _ = run(model, pruning, rows=[prompt])
    for answer in ([77], [90, 91, 92, 93, 94, 95], [5] * 30):
        ids = [*prompt, *answer]
        if labelled:
            labels = torch.tensor([[IGNORE_INDEX] * len(prompt) + answer])
            got, _ = run(model, pruning, rows=[ids], labels=labels)
        else:
            got, _ = run(model, pruning, rows=[ids], answer_lengths=[len(answer)])
        assert lists(got.kept) == lists(want.kept)
        for layer, scores in want.scores.items():
            for mine, theirs in zip(got.scores[layer], scores, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ["cdpruner", "mmtok"])
def test_selectors_that_read_the_question_do_not_read_the_answer(name, layer):
    model = model_of()
    settings = {"relevance": "llm"} if name == "cdpruner" else {}
    pruning = make_pruning(name, k=9, layer=layer, **settings)
    prompt = PICTURES[1]
    want, _ = run(model, pruning, rows=[prompt])
    other, _ = run(model, pruning, rows=[[*prompt, 333, 444, 555]])
    assert lists(other.kept) != lists(want.kept)
    for answer in ([333, 444, 555], [5] * 30):
        got, _ = run(model, pruning, rows=[[*prompt, *answer]], answer_lengths=[len(answer)])
        assert lists(got.kept) == lists(want.kept)
        labels = torch.tensor([[IGNORE_INDEX] * len(prompt) + answer])
        got, _ = run(model, pruning, rows=[[*prompt, *answer]], labels=labels)
        assert lists(got.kept) == lists(want.kept)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ["cdpruner", "mmtok"])
def test_selectors_that_read_the_question_do_without_one_alone_and_in_a_batch(name, layer):
    model, silent, asked = model_of(), PICTURES[2], PICTURES[0]
    assert silent[-1] == IMAGE
    settings = {"relevance": "llm"} if name == "cdpruner" else {}
    pruning = make_pruning(name, k=9, layer=layer, **settings)
    first, _ = run(model, pruning, rows=[silent])
    together, _ = run(model, pruning, rows=[silent, asked])
    assert lists(together.kept)[layer][0] == lists(first.kept)[layer][0]
    assert len(together.kept[layer][1]) == 9
    if name == "cdpruner":
        plain, _ = run(model, make_pruning(name, k=9, layer=layer, preset="plain"), rows=[silent])
        assert lists(plain.kept) == lists(first.kept)


def test_an_answer_is_nothing_that_transitions_are_weighed_against():
    # In float32 the shares are so alike that the answer would rarely change what is kept.
    class Sums(type(SCHEDULED["transprune"].pruner)):
        def _prune(self, view, k):
            kept = super()._prune(view, k)
            return Kept(kept.index, scores=view.accumulated[view.visual])

    pruner = Sums(schedule="1:0.8/2:0.5/3:0.2", observe_from=0, observe_to=2)
    model, pruning, prompt = model_of(), Pruning((), pruner=pruner), PICTURES[0]
    want, _ = run(model, pruning, rows=[prompt])
    for arguments in ({"answer_lengths": [30]}, {}):
        got, _ = run(model, pruning, rows=[[*prompt, *[5] * 30]], **arguments)
        for layer in (1, 2, 3):
            ratio = got.scores[layer][0] / want.scores[layer][0]
            assert (largest(ratio - 1) < 1e-4) == bool(arguments)


def test_a_prompt_of_which_nothing_is_left_is_refused():
    model = model_of()
    for rows in ([[IMAGE]], [[IMAGE], [1, 5, IMAGE]]):
        with pytest.raises(ValueError, match="without text has nothing left at layer 2"):
            run(model, SCHEDULED["vtw"], rows=rows)
    assert run(model, SCHEDULED["vtw"], rows=[[1, IMAGE]])[0].lengths[-1] == [1]


@pytest.mark.parametrize("setting", MERGING)
def test_a_batch_with_answers_has_the_rows_losses(setting):
    model, pruning = model_of(), MERGING[setting]
    losses, terms = [], 0
    for request in [*alone(PICTURES), small_request(PICTURES, "right")]:
        ids = request["input_ids"]
        labels = ids.masked_fill(~request["attention_mask"], IGNORE_INDEX)
        # Only the text behind the images is learnt.
        labels[:, :5] = IGNORE_INDEX
        labels[labels == IMAGE] = IGNORE_INDEX
        with torch.no_grad():
            out = model(**request, labels=labels, pruning=pruning)
        count = int((labels != IGNORE_INDEX).sum())
        losses.append(float(out.loss) * count if count else 0.0)
        terms = count
    assert sum(losses[:-1]) == pytest.approx(losses[-1], rel=1e-5)
    assert terms


@pytest.mark.parametrize("setting", ["means", "sparsevlm 1.5"])
def test_labels_of_merged_tokens_are_ignored_and_the_text_s_stay(setting):
    model, pruning = model_of(), MERGING[setting]
    request = small_request(PICTURES[:1])
    labels = request["input_ids"].clone()
    labels[labels == IMAGE] = IGNORE_INDEX
    with torch.no_grad():
        out = model(**request, labels=labels, pruning=pruning)
    end = out.logits.shape[1]
    want = [
        *((0, 20), (1, 21), (2, 22)),
        # What predicts 30 is the image's last token, merged or not.
        (end - 5, 30),
        (end - 4, 31),
        (end - 3, 32),
        (end - 2, 33),
    ]
    terms = [-float(out.logits[0, at].log_softmax(-1)[token]) for at, token in want]
    assert float(out.loss) == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_merged_tokens_stand_behind_their_image_s_kept_ones_and_count_on():
    model = model_of()
    trace, _ = run(model, MERGING["means"], rows=PICTURES[1:2])
    for image, (rows, columns) in enumerate([(6, 8), (5, 5)]):
        n = rows * columns
        first, second = trace.kept[1][image].tolist(), trace.kept[3][image].tolist()
        assert first[-2:] == [n, n + 1]
        assert len(first) == int(0.6 * n) + 2
        assert second[-2:] == [n + 2, n + 3]
        assert len(second) == int(0.3 * n) + 2
        assert first == sorted(first)
        assert second == sorted(second)
        assert set(second[:-2]) <= set(first)


def test_gradients_pass_through_layer_pruners():
    model = model_of()
    image = small_image(0)
    tokens = image.tokens.clone().requires_grad_()
    request = small_request(PICTURES[:1]) | {"visual": [type(image)(tokens)]}
    for setting in ("transprune", "means"):
        tokens.grad = None
        labels = request["input_ids"].clamp(min=IGNORE_INDEX)
        model(**request, labels=labels, pruning=EVERY[setting]).loss.backward()
        assert tokens.grad.isfinite().all()
        assert float(tokens.grad.abs().sum()) > 0
    model.zero_grad()

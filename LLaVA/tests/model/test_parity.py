"""Against values recorded from the original LLaVA and from the OTPrune and DivPrune forks.

Differences are bounded by 2e-5 throughout (logits range over about 10).
"""

import pytest
import torch

from helpers import arrays, case_id, cases, inputs_of, largest, last_logits, loaded, visual_of
from llava.constants import IGNORE_INDEX
from otprune.pruning import Trace, make_pruning

LIMIT = 2e-5

# One token of 229 falls the other way: a near-tie within the rounding of products, which machines
# and attention kernels sum in other orders.
NEAR_TIES = {"otprune__v1.6_late_r0.098", "otprune__v1.6_land_r0.098_fp16"}


def method_of(entry) -> str:
    return entry["reference"].removeprefix("corrected-")


def generated(model, batch, pruning, tokens=12) -> list[list[int]]:
    return model.generate(**batch, pruning=pruning, max_new_tokens=tokens, do_sample=False).tolist()


def spliced(model, batch, pruning, trace=None):
    """The batch as it enters the language model."""
    ids, mask, visual = batch["input_ids"], batch["attention_mask"], batch["visual"]
    prepared = model.prepare(ids, mask, None, visual, pruning=pruning, side="right", trace=trace)
    return prepared.batch


def recorded_tokens(entry) -> list[list[int]]:
    # The old transformers put a bos in front of what it generated.
    return arrays(entry)["gen_ids"][:, 1:].tolist()


def assert_same_tokens(entry, got: list[list[int]], rows) -> None:
    want = recorded_tokens(entry)
    for row in rows:
        assert got[row][: len(want[row])] == want[row]


@pytest.mark.parametrize("entry", cases("visual"), ids=case_id)
def test_visual_tokens_are_the_original_s(entry):
    tokens = visual_of(entry["checkpoint"], entry["image"]).tokens
    assert largest(tokens - arrays(entry)["visual_tokens"]) <= LIMIT


@pytest.mark.parametrize(
    "entry", cases("full", "plain", "corrected", "bug", "textonly"), ids=case_id
)
def test_prompts_have_the_original_s_token_ids(entry):
    assert torch.equal(inputs_of(entry)["input_ids"], arrays(entry)["input_ids"])


@pytest.mark.parametrize("entry", cases("full"), ids=case_id)
def test_the_unpruned_model_answers_as_the_original(entry):
    model = loaded(entry["checkpoint"])[1]
    batch, want = inputs_of(entry), arrays(entry)
    prepared = spliced(model, batch, None)
    if "prep_rowsum" in want:
        assert largest(prepared.embeds.sum(-1) - want["prep_rowsum"]) <= 2e-4
    if "prep_attention_mask" in want:
        assert torch.equal(prepared.attention_mask, want["prep_attention_mask"].bool())
    assert largest(last_logits(model, batch, None) - want["logits"]) <= LIMIT
    # Right padding spoils what the original makes of a shorter row; see the next test.
    longest = max(prepared.lengths)
    rows = [row for row, length in enumerate(prepared.lengths) if length == longest]
    assert_same_tokens(entry, generated(model, batch, None), rows)


def test_a_shorter_row_of_a_batch_answers_as_alone():
    entries = {case_id(entry): entry for entry in cases("full")}
    batch, alone = (entries[f"official__v1.5_{name}_full"] for name in ("ragged", "p2_port"))
    model = loaded(batch["checkpoint"])[1]
    answer = generated(model, inputs_of(batch), None)[1]
    want = recorded_tokens(alone)[0]
    assert answer[: len(want)] == want
    assert answer[: len(want)] != recorded_tokens(batch)[1]


@pytest.mark.parametrize("entry", cases("plain"), ids=case_id)
def test_one_image_in_a_vicuna_prompt_is_pruned_as_released(entry):
    model = loaded(entry["checkpoint"])[1]
    preset = {"preset": "released"} if method_of(entry) == "otprune" else {}
    pruning = make_pruning(method_of(entry), keep_ratio=entry["ratio"], **preset)
    batch, want = inputs_of(entry), arrays(entry)
    trace = Trace()
    prepared = spliced(model, batch, pruning, trace)
    kept, sel = trace.kept[0][0].tolist(), want["sel"].tolist()
    sel = sel if method_of(entry) == "otprune" else sorted(sel)
    assert len(set(kept) & set(sel)) >= entry["f64_overlap"]
    if entry["f64_first_order_difference"] is None:
        assert kept == sel
    if kept != sel:
        pytest.skip("another order among near-ties of float32: embeddings are not comparable")
    assert largest(prepared.embeds.sum(-1) - want["prep_rowsum"]) <= 2e-4
    if "prep_embeds" in want:
        assert largest(prepared.embeds - want["prep_embeds"]) <= LIMIT
    assert largest(last_logits(model, batch, pruning) - want["logits"]) <= LIMIT
    assert_same_tokens(entry, generated(model, batch, pruning), [0])


@pytest.mark.parametrize("entry", cases("plain"), ids=case_id)
def test_the_default_method_keeps_the_released_tokens_in_spatial_order(entry):
    model = loaded(entry["checkpoint"])[1]
    trace = Trace()
    pruning = make_pruning(method_of(entry), keep_ratio=entry["ratio"])
    with torch.no_grad():
        model(**inputs_of(entry), pruning=pruning, trace=trace)
    kept, sel = trace.kept[0][0].tolist(), arrays(entry)["sel"].tolist()
    assert kept == sorted(kept)
    assert len(set(kept) & set(sel)) >= entry["f64_overlap"]


@pytest.mark.parametrize("entry", cases("corrected"), ids=case_id)
def test_any_prompt_is_pruned_per_image_where_the_image_is(entry):
    model = loaded(entry["checkpoint"])[1]
    settings = {}
    if method_of(entry) == "otprune":
        order = "reference" if entry["order"] == "fork" else "spatial"
        settings = {"order": order, "arithmetic": "reference"}
    pruning = make_pruning(method_of(entry), keep_ratio=entry["ratio"], **settings)
    batch, want = inputs_of(entry), arrays(entry)
    trace = Trace()
    with torch.no_grad():
        model(**batch, pruning=pruning, trace=trace)
    kept = torch.cat(trace.kept[0]).tolist()
    tolerance = sum(one["f64_overlap"] for one in entry["stability_per_image"])
    assert [len(one) for one in trace.kept[0]] == entry["n_kept_per_image"]
    if len(kept) == tolerance:
        assert kept == want["sel"].tolist()
    assert largest(last_logits(model, batch, pruning) - want["logits"]) <= LIMIT
    assert_same_tokens(entry, generated(model, batch, pruning), [0])


@pytest.mark.parametrize("entry", cases("corrected"), ids=case_id)
def test_labels_are_pruned_with_their_tokens(entry):
    model = loaded(entry["checkpoint"])[1]
    settings = {}
    if method_of(entry) == "otprune":
        order = "reference" if entry["order"] == "fork" else "spatial"
        settings = {"order": order, "arithmetic": "reference"}
    pruning = make_pruning(method_of(entry), keep_ratio=entry["ratio"], **settings)
    assert loss_of_last_five(model, inputs_of(entry), pruning) == pytest.approx(
        entry["loss_last5"], abs=2e-5
    )


@pytest.mark.parametrize("entry", cases("loss"), ids=case_id)
def test_the_unpruned_loss_is_the_original_s(entry):
    batch = inputs_of(entry | {"images": [entry["image"]]})
    loss = loss_of_last_five(loaded(entry["checkpoint"])[1], batch, None)
    assert loss == pytest.approx(entry["loss_last5"], abs=2e-5)


def loss_of_last_five(model, batch, pruning) -> float:
    labels = batch["input_ids"].clone()
    labels[:, :-5] = IGNORE_INDEX
    with torch.no_grad():
        return float(model(**batch, labels=labels, pruning=pruning).loss)


@pytest.mark.parametrize("entry", cases("textonly"), ids=case_id)
def test_a_prompt_without_an_image_is_not_pruned(entry):
    model = loaded(entry["checkpoint"])[1]
    pruning = make_pruning(method_of(entry), keep_ratio=entry["ratio"])
    batch = inputs_of(entry)
    assert batch["visual"] == []
    assert largest(last_logits(model, batch, pruning) - arrays(entry)["logits"]) <= LIMIT
    assert_same_tokens(entry, generated(model, batch, pruning), [0])


@pytest.mark.parametrize("entry", cases("bug"), ids=case_id)
def test_mistakes_of_the_released_code_come_out_when_asked_for(entry):
    model = loaded(entry["checkpoint"])[1]
    pruning = make_pruning(
        method_of(entry), keep_ratio=entry["ratio"], layer=entry["layer"], compat="reference"
    )
    batch, want = inputs_of(entry), arrays(entry)
    trace = Trace()
    with torch.no_grad():
        logits = model(**batch, pruning=pruning, trace=trace).logits
    assert [len(logits), logits.shape[1]] == entry["positions"]
    if entry["layer"] != 0:
        assert trace.kept == {}
    elif method_of(entry) == "otprune":
        kept, sel = trace.kept[0][0].tolist(), want["sel"].tolist()
        if case_id(entry) in NEAR_TIES:
            assert len(set(kept) & set(sel)) >= len(sel) - 1
            return
        assert kept == sel
    assert largest(last_logits(model, batch, pruning) - want["logits"]) <= LIMIT


@pytest.mark.parametrize("entry", cases("bug"), ids=case_id)
def test_mistakes_of_the_released_code_do_not_come_out_otherwise(entry):
    model = loaded(entry["checkpoint"])[1]
    pruning = make_pruning(method_of(entry), keep_ratio=entry["ratio"], layer=entry["layer"])
    batch, want = inputs_of(entry), arrays(entry)
    trace = Trace()
    with torch.no_grad():
        model(**batch, pruning=pruning, trace=trace)
    kept = trace.kept[entry["layer"]]
    assert [len(one) for one in kept] == [round(entry["ratio"] * n) for n in entry["n_visual"]]
    assert largest(last_logits(model, batch, pruning) - want["logits"]) > 1e-2


@pytest.mark.parametrize(
    "entry", [e for e in cases("fp16") if e["reference"] == "otprune"], ids=case_id
)
def test_half_precision_keeps_the_tokens_that_the_fork_keeps_in_half_precision(entry):
    model = loaded(entry["checkpoint"], "float16")[1]
    trace = Trace()
    pruning = make_pruning("otprune", keep_ratio=entry["ratio"], preset="released")
    with torch.no_grad():
        model(**inputs_of(entry, "float16"), pruning=pruning, trace=trace)
    kept, sel = trace.kept[0][0].tolist(), arrays(entry)["sel"].tolist()
    assert len(set(kept) & set(sel)) >= len(sel) - (case_id(entry) in NEAR_TIES)

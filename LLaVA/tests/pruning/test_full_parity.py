"""The unpruned model of 32 layers against the original, before methods that prune inside it."""

import pytest

from helpers import arrays, case_id, inputs_of
from pruning.parity32 import answer, assert_same, cases32

CASES = cases32("full")


@pytest.mark.parametrize("entry", CASES, ids=case_id)
def test_the_prompt_has_the_original_s_token_ids(entry):
    assert inputs_of(entry)["input_ids"].tolist() == arrays(entry)["input_ids"].tolist()


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.long)])
@pytest.mark.parametrize("entry", CASES, ids=case_id)
def test_the_unpruned_model_answers_as_the_original(entry, attention):
    assert_same(entry, answer(entry, None, attention))

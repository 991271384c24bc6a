"""Options of a question: what a model may write for each, and which is right."""

import pytest

from otprune_lmms.benchmarks import OTPRUNE_11, Options, all_benchmarks, benchmark
from otprune_lmms.benchmarks.options import first_letters, lettered, yes_or_no
from suites import right, rows

LETTERED = ("mmbench_en_dev_static", "mmmu_val", "scienceqa_img", "seedbench")
YES_NO = ("mme", "pope")
NUMBERS = {"mmbench_en_dev_static": 2, "mmmu_val": 2, "scienceqa_img": 2, "seedbench": 4}


@pytest.mark.parametrize("task", OTPRUNE_11)
def test_the_right_option_is_the_answer_that_scores_best(task):
    rule = benchmark(task).options
    if task not in (*LETTERED, *YES_NO):
        assert rule is None
        return
    assert rule is not None
    for document, answer in zip(rows(task), right(task), strict=True):
        options = rule(document)
        assert options is not None
        assert answer in options.texts[options.right]
        assert len(options.names) == NUMBERS.get(task, 2)
        assert len({text for some in options.texts for text in some}) == sum(
            map(len, options.texts)
        )


def test_other_forms_of_a_benchmark_have_its_options():
    shared = ("seedbench_video", "mmbench_en_dev")
    assert all(all_benchmarks()[name].options is not None for name in shared)


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("mmmu_val", {"question_type": "open"}),
        ("mmmu_val", {"answer": "Z"}),
        ("mmbench_en_dev_static", {"B": "nan"}),
        ("mmbench_en_dev_static", {"answer": None}),
        ("scienceqa_img", {"answer": 9}),
        ("seedbench", {"answer": "E"}),
        ("pope", {"answer": "maybe"}),
    ],
)
def test_a_document_without_a_right_option_has_none(task, change):
    rule = benchmark(task).options
    assert rule is not None
    assert rule(rows(task)[0] | change) is None


def test_options_are_letters_or_words():
    assert first_letters(4) == "ABCD"
    assert lettered("ABC", "B") == Options((("A",), ("B",), ("C",)), 1)
    assert lettered("A", "A") is None
    assert yes_or_no({"answer": " No"}) == Options((("Yes", "yes"), ("No", "no")), 1)

"""Names of settings: short, and never the same for two."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import results_folder
from otprune import PRUNERS
from otprune_lmms.experiments.pruning_choices import PruningChoices
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.manifest import read_manifest
from otprune_lmms.results.names import LONGEST_LABEL, METHOD_NAMES, Names, names_of
from otprune_lmms.results.records import UNPRUNED

SCHEDULE = "1:0.52/2:0.35/4:0.2"


def names(*configs, **labels):
    columns = [one.columns() for one in configs]
    return Names(one | ({"label": labels[one["row"]]} if one["row"] in labels else {})
                 for one in columns)  # fmt: skip


def shown(*configs):
    called = names(*configs)
    return [called.setting(one.label) for one in configs]


def test_every_method_of_ours_has_a_name_of_its_own():
    assert METHOD_NAMES.keys() == PRUNERS.keys()
    assert len({name.casefold() for name in METHOD_NAMES.values()}) == len(METHOD_NAMES)


def test_a_name_says_the_settings_in_which_a_method_s_rows_differ_and_no_others():
    make = PruningConfig.make
    plain, plus = (make("prumerge", 0.4, block="selected", plus=plus) for plus in (False, True))
    assert shown(PruningConfig(), plain, plus) == ["unpruned", "PruMerge 0.4", "PruMerge+ 0.4"]
    assert names(plain, plus).unsaid == {"PruMerge": "block selected", "PruMerge+": "block selected"}
    assert shown(make("sparsevlm", 0.4, schedule=SCHEDULE), make("fastv", 0.4)) == [
        "SparseVLM 0.4", "FastV 0.4",
    ]  # fmt: skip
    assert shown(make("otprune", 0.1), make("otprune", 0.1, gamma=0.05)) == [
        "OTPrune 0.1", "OTPrune 0.1, γ = 0.05",
    ]  # fmt: skip
    assert shown(make("otprune", k=64), make("otprune", k=64, layer=2)) == [
        "OTPrune k = 64", "OTPrune k = 64, layer 2",
    ]  # fmt: skip
    assert shown(make("otprune", 0.4), make("otprune", 0.4, match="average")) == [
        "OTPrune 0.4, kept at the end", "OTPrune 0.4, average",
    ]  # fmt: skip
    assert shown(make("otprune", 0.4, match="flops"), make("otprune", 0.4)) == [
        "OTPrune 0.4 flops", "OTPrune 0.4",
    ]  # fmt: skip
    assert shown(make("fastv"), make("fastv", 0.4)) == ["FastV, own schedule", "FastV 0.4"]
    assert shown(make("fastv")) == ["FastV"]


def test_seeds_share_the_name_of_their_row():
    seeds = [PruningConfig.make("random", 0.1, seed=seed) for seed in (0, 1)]
    called = names(*seeds)
    assert called.whole(seeds[1].row) == "Random 0.1"
    assert called.setting(seeds[1].label) == "Random 0.1, seed 1"
    assert shown(seeds[1]) == ["Random 0.1"]


def test_a_label_stands_for_the_method_s_name():
    one, two = PruningConfig.make("otprune", 0.1), PruningConfig.make("otprune", 0.1, gamma=0.05)
    called = names(one, two, **{two.row: "OTPrune, tuned"})
    assert (called.whole(one.row), called.whole(two.row)) == ("OTPrune 0.1", "OTPrune, tuned 0.1")
    assert called.of(two.row).line == called.of(two.row).short == "OTPrune, tuned"


def test_unknown_rows_and_methods_of_others_keep_their_names():
    assert Names(()).whole("mine-0.5") == "mine-0.5"
    assert Names(()).setting("mine-0.5-seed1") == "mine-0.5-seed1"
    other = PruningConfig.make("otprune", 0.5).columns() | {"method": "mine", "row": "mine-0.5"}
    assert Names([other]).whole("mine-0.5") == "mine 0.5"
    assert names_of(None).whole(UNPRUNED) == UNPRUNED


ratios = st.sampled_from([None, 0.1, 0.25])
configs = st.one_of(
    st.just(PruningConfig()),
    st.builds(
        PruningConfig.make, st.just("otprune"), st.sampled_from([0.1, 0.25]),
        layer=st.sampled_from([0, 2]), match=st.sampled_from(["kept", "average", "flops"]),
        gamma=st.sampled_from([0.01, 0.05]), positions=st.sampled_from([None, "original"]),
    ),
    st.builds(PruningConfig.make, st.just("otprune"), k=st.sampled_from([5, 25])),
    st.builds(PruningConfig.make, st.just("fastv"), ratios),
    st.builds(PruningConfig.make, st.just("sparsevlm"), ratios,
              version=st.sampled_from(["1.5", "2"]), schedule=st.sampled_from(["1:0.5", SCHEDULE])),
    st.builds(PruningConfig.make, st.just("random"), ratios.filter(bool), seed=st.integers(0, 3)),
)  # fmt: skip


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(configs, unique_by=lambda one: one.label, max_size=12))
def test_no_two_settings_have_one_name(some):
    called = names(*some)
    assert len(set(shown(*some))) == len(some)
    rows = {one.row for one in some}
    assert len({called.whole(row) for row in rows}) == len(rows)
    # None is told apart by its row, as names that say too little would be.
    assert not any(f"({row})" in called.whole(row) for row in rows)


def test_a_row_is_added_where_names_are_the_same_all_the_same():
    plain = PruningConfig.make("otprune", 0.1).columns()
    called = Names([plain, plain | {"row": "other", "setting": "other"}])
    assert {called.whole(plain["row"]), called.whole("other")} == {
        "OTPrune 0.1", "OTPrune 0.1 (other)",
    }  # fmt: skip


def choices(*methods, **more):
    return PruningChoices.model_validate({"methods": list(methods), "keep_ratios": [0.1]} | more)


def test_labels_of_a_file_are_names_and_answers_do_not_depend_on_them():
    plain = choices({"method": "otprune", "settings": {"gamma": 0.05}})
    labelled = choices({"method": "otprune", "settings": {"gamma": 0.05}, "label": "Mine (γ)"})
    assert labelled.configs() == plain.configs()
    for one, other in zip(labelled.configs(), plain.configs(), strict=True):
        assert (one.fingerprint, one.answer_key, one.label) == (
            other.fingerprint, other.answer_key, other.label,
        )  # fmt: skip
    assert [labelled.names.setting(one.label) for one in labelled.configs()] == [
        "unpruned", "Mine (γ) 0.1",
    ]  # fmt: skip
    assert yaml.safe_load("{method: otprune, label: Mine}")["label"] == "Mine"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["A", "A"], "labels must be distinct, got 'A', which names otprune too"),
        (["a", "A"], "labels must be distinct"),
        (["FastV"], "labels must be distinct, got 'FastV', which names fastv too"),
        (["unpruned"], "labels must be distinct, got 'unpruned', which names the unpruned model"),
        ([""], "at least 1 character"),
        ([" x"], "label must be one line of letters, got ' x'"),
        (["a\nb"], "label must be one line of letters"),
        (["a\x1b[31m"], "label must be one line of letters"),
        (["a\u202eb"], "label must be one line of letters"),
        (["x" * (LONGEST_LABEL + 1)], "at most 40 characters"),
        ([7], "valid string"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    entries = [
        {"method": "otprune", "settings": {"gamma": 0.01 * (place + 2)}, "label": label}
        for place, label in enumerate(labels)
    ]
    with pytest.raises(ValueError, match=message):
        choices(*entries, "fastv")


@pytest.mark.parametrize("damage", [{"changed_settings": "{"}, {"changed_settings": "[1]"},
                                    {"changed_settings": 5}, {"label": 5}, {"seed": "x"}])  # fmt: skip
def test_a_manifest_whose_settings_cannot_be_named_is_refused_in_a_sentence(tmp_path, damage):
    content = results_folder.manifest()
    columns = PruningConfig.make("otprune", 0.5).columns()
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"configs": [columns]}))
    assert read_manifest(tmp_path).configs == (columns,)
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"configs": [columns | damage]}))
    with pytest.raises(ValueError, match="manifest.json is no manifest of a run: .*configs"):
        read_manifest(tmp_path)

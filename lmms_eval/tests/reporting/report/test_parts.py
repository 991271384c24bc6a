"""Parts of the report: which samples, what of them, how small."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import otprune_lmms.reporting.report
import results_folder
from otprune_lmms.reporting.report.choose import choose_samples, disagree
from otprune_lmms.reporting.report.embed import LONGEST, Texts, spelt_out
from otprune_lmms.reporting.report.pictures import SIDE, EmbeddedImages, KeptPatches, bits
from otprune_lmms.reporting.report.sheets import number
from otprune_lmms.reporting.report.store import SampleStore


def frame(values, task="gqa", model="m"):
    """Samples of documents 0, 1, ... with one value for each setting."""
    lines = [
        {"task": task, "doc_id": doc, "cluster": f"{task}{doc}", "model": model, "setting": setting}
        | {"value": value, "answer": str(value)}
        for doc, many in enumerate(values)
        for setting, value in enumerate(many)
    ]
    return pd.DataFrame(lines)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3), min_size=1),
    st.integers(1, 6),
)
def test_documents_come_by_their_spread_and_then_by_number(values, per_task):
    found = choose_samples(frame(values), per_task)
    spread = [np.std(many).round(9) for many in values]
    want = sorted(range(len(values)), key=lambda doc: (-spread[doc], doc))[:per_task]
    assert found["doc_id"].tolist() == want


def test_half_are_taken_among_recorded_images_where_there_are_enough():
    values = [[0, 1]] * 6 + [[1, 1]] * 4
    samples = frame(values)
    assert choose_samples(samples, 4)["doc_id"].tolist() == [0, 1, 2, 3]
    recorded = {f"gqa{doc}" for doc in (5, 7, 8, 9)}
    assert choose_samples(samples, 4, recorded)["doc_id"].tolist() == [0, 1, 5, 7]
    assert choose_samples(samples, 3, {"gqa9"})["doc_id"].tolist() == [0, 1, 9]
    assert choose_samples(samples, 100, recorded)["doc_id"].tolist() == list(range(10))


def test_tasks_keep_their_order_and_documents_without_a_value_come_last():
    none = frame([[np.nan, np.nan], [0, 1]], task="zzz")
    found = choose_samples(pd.concat([none, frame([[1, 1]], task="aaa")]), 5)
    assert list(zip(found["task"], found["doc_id"], strict=True)) == [
        ("zzz", 1), ("zzz", 0), ("aaa", 0),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="per_task must be at least 1, got 0"):
        choose_samples(none, 0)


def test_the_spread_is_a_mean_over_models():
    one = frame([[0, 1], [1, 1], [0, 1]], model="a")
    other = frame([[1, 1], [1, 1], [0, 1]], model="b")
    found = choose_samples(pd.concat([one, other]), 3)
    assert found["doc_id"].tolist() == [2, 0, 1]
    assert found["spread"].tolist() == [0.5, 0.25, 0.0]


def test_settings_disagree_by_value_and_on_captions_by_words():
    assert disagree(frame([[1, 0]]))
    assert not disagree(frame([[1, 1]]).assign(answer=["red", "Red."]))
    assert disagree(frame([[1, 1]], "coco2017_cap_val").assign(answer=["a", "b"]))
    assert not disagree(frame([[1, 2]], "coco2017_cap_val").assign(answer="a"))
    # Two models that differ, each true to itself.
    both = pd.concat([frame([[1, 1]], model="a"), frame([[0, 0]], model="b")])
    assert not disagree(both)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_bits_give_the_kept_patches_back(rows, columns, data):
    kept = data.draw(st.sets(st.integers(0, rows * columns - 1)))
    content = base64.b64decode(bits(sorted(kept), (rows, columns)))
    found = {i for i in range(8 * len(content)) if content[i // 8] >> (7 - i % 8) & 1}
    assert found == kept
    assert len(content) == -(-rows * columns // 8)


def test_kept_patches_are_found_by_image_and_named_by_number():
    diagnostics = results_folder.diagnostics()
    kept = KeptPatches(diagnostics, ["tiny"], ["unpruned", "otprune-0.25"])
    assert kept.clusters == {f"{task} {i}" for task in results_folder.METRICS for i in range(2)}
    found, nothing = kept.of("gqa 0", 2)
    assert nothing is None
    line = diagnostics[
        (diagnostics["cluster"] == "gqa 0") & (diagnostics["setting"] == "otprune-0.25")
    ]
    assert found == {
        "grid": [4, 4], "sets": [[0, 1, bits(line["kept"].item(), (4, 4))]],
    }  # fmt: skip
    assert KeptPatches(None, ["tiny"], []).of("gqa 0", 1) == [None]


def test_equal_images_are_stored_once_and_small():
    embedded = EmbeddedImages()
    wide = Image.effect_noise((1600, 800), 60)
    assert [embedded.add(one) for one in (wide, wide.copy(), wide.resize((80, 40)))] == [0, 0, 1]
    first = embedded.images[0]
    assert (first.width, first.height) == (1600, 800)
    content = base64.b64decode(first.uri.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as stored:
        assert stored.size == (SIDE, SIDE // 2)
    assert len(content) < 60_000


def test_long_texts_are_cut_and_equal_ones_are_one():
    texts = Texts()
    assert [texts.add(text) for text in ("a", "x" * 10_000, "a", "x" * LONGEST)] == [0, 1, 0, 2]
    assert texts.texts[1] == "x" * LONGEST + " … (10000 characters)"
    assert texts.texts[2] == "x" * LONGEST


@pytest.mark.parametrize(
    ("target", "want"),
    [
        ("red", ["red"]),
        ("['a', \"b's\", 'a']", ["a", "b's"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[]", ["[]"]),
        ("[oops]", ["[oops]"]),
        ("[__import__('os').system('touch /tmp/pwned')]", None),
        ("[" * 100_000 + "]", None),
        ("", [""]),
    ],
)
def test_targets_are_spelt_out_and_never_run(target, want):
    assert spelt_out(target) == ([target] if want is None else want)


def test_a_task_with_one_target_for_all_has_none(tmp_path):
    folder = results_folder.write_folder(tmp_path / "one", target="answer")
    assert SampleStore(folder).silent == set(results_folder.METRICS)
    assert SampleStore(results_folder.write_folder(tmp_path / "two")).silent == set()


def test_the_store_gives_the_samples_of_documents(tmp_path):
    store = SampleStore(results_folder.write_folder(tmp_path / "r"))
    found = store.of([("pope", 3), ("gqa", 1)])
    assert list(found) == [("pope", 3), ("gqa", 1)]
    for (task, doc), own in found.items():
        assert set(own["task"]) == {task}
        assert set(own["doc_id"]) == {doc}
        assert own["setting"].tolist() == store.settings


def test_numbers_have_a_true_minus_and_no_minus_zero():
    assert number(-1.25, 1, signed=True) == "−1.2"
    assert number(1.26, 1, signed=True) == "+1.3"
    assert number(-0.001, 1) == "0.0"
    assert number(float("nan"), 1) == "–"


def palette(block: str) -> dict[str, np.ndarray]:
    found = {}
    for name, colour in re.findall(r"--(\w+): #([0-9a-f]{3,6});", block):
        full = colour if len(colour) == 6 else "".join(2 * c for c in colour)
        found[name] = np.array([int(full[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return found


def luminance(colour: np.ndarray) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_has_contrast_in_light_and_dark():
    style = (Path(otprune_lmms.reporting.report.__file__).parent / "page.css").read_text()
    light, dark = (palette(block) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL))
    assert set(light) == set(dark)
    for theme in (light, dark):
        for text in ("ink", "muted", "link", "good", "bad", "mixed"):
            for ground in ("ground", "card", "soft"):
                low, high = sorted((luminance(theme[text]), luminance(theme[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)

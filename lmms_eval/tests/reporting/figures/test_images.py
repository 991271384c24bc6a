"""Images and references of a run's documents, from the data files of its tasks."""

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from otprune_lmms.cli.images import NoDocuments, TaskImages, document_images
from otprune_lmms.images import image_cluster, image_hash
from otprune_lmms.reporting.figures.images import (
    TASK_FILES,
    DataFileImages,
    parquet_files,
    task_file_folder,
)
from otprune_lmms.results.records import records_frame
from results_folder import SETTINGS, manifest

MINI = TASK_FILES / "mini"


def cluster(*images):
    return image_cluster([image_hash(image) for image in images])


def run(folder, clusters):
    """A results folder with samples of some documents and what their images are."""
    folder.mkdir(exist_ok=True)
    lines = [{"task": t, "doc_id": d, "cluster": one} for (t, d), one in clusters.items()]
    pd.DataFrame(lines).to_parquet(folder / "samples.parquet")
    return folder


@pytest.mark.parametrize("task", ["pope", "ok_vqa_val2014", "mmmu_val", "seedbench"])
def test_images_and_references_are_those_that_lmms_eval_gives(task, tmp_path):
    documents = [(task, number) for number in range(6)]
    stock = TaskImages({task: 6}, MINI)
    want, texts = stock(documents), stock.references(documents)
    assert len(want) == 6
    source = DataFileImages(MINI, run(tmp_path, {d: cluster(*i) for d, i in want.items()}))
    found = source([*documents, ("pope", 99), ("gqa", 0)])
    assert list(found) == documents
    for document in documents:
        assert len(found[document]) == len(want[document])
        for own, other in zip(found[document], want[document], strict=True):
            np.testing.assert_array_equal(np.asarray(own), np.asarray(other.convert("RGB")))
    assert source.references(documents) == texts


def picture(number):
    return Image.new("RGB", (8 + number, 6), (20 * number, 7, 9))


def stored(image):
    content = io.BytesIO()
    image.save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


def suite(folder, rows, head="task: mine\ndataset_path: parquet\n"):
    """A folder of one task file and its data."""
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "own.parquet")
    text = "dataset_kwargs:\n  data_files:\n    test: own.parquet\n"
    (folder / "mine.yaml").write_text(head + text)
    return folder


def test_a_document_that_is_another_row_is_found_by_its_images(tmp_path):
    rows = [{"image": stored(picture(n)), "answer": f"a{n}"} for n in range(4)]
    files = suite(tmp_path / "tasks", rows)
    # The task left the first row out, so its document 1 is row 2.
    results = run(
        tmp_path / "r", {("mine", 1): cluster(picture(2)), ("mine", 3): cluster(picture(3))}
    )
    source = DataFileImages(files, results)
    found = source([("mine", 1), ("mine", 3)])
    assert found["mine", 1][0].size == (10, 6)
    assert found["mine", 3][0].size == (11, 6)
    assert source.references([("mine", 1), ("mine", 3)]) == {("mine", 3): ["a3"]}


def test_images_that_the_run_did_not_see_are_never_shown(tmp_path, caplog):
    files = suite(tmp_path / "tasks", [{"image": stored(picture(n))} for n in range(3)])
    results = run(
        tmp_path / "r", {("mine", 0): cluster(picture(9)), ("mine", 1): cluster(picture(1))}
    )
    found = DataFileImages(files, results)([("mine", 0), ("mine", 1)])
    assert list(found) == [("mine", 1)]
    assert "no images of some documents of mine: its data files have changed" in caplog.text


def test_of_several_images_those_are_shown_that_the_run_saw(tmp_path):
    one, two, three = (stored(picture(n)) for n in (1, 2, 3))
    rows = [
        {"frames": [one, two], "image_1": None, "image_2": None, "image_3": None, "question": ""},
        {"frames": [], "image_1": one, "image_2": two, "image_3": three,
         "question": "Is <image 3> like <image 1>?"},
        {"frames": [three, two, one], "image_1": None, "image_2": None, "image_3": None,
         "question": ""},
        {"frames": [], "image_1": None, "image_2": None, "image_3": None, "question": "Why?"},
    ]  # fmt: skip
    seen = {
        ("mine", 0): cluster(picture(1)),  # the first frame of a video
        ("mine", 1): cluster(picture(1), picture(3)),
        ("mine", 2): cluster(picture(3), picture(2), picture(1)),
        ("mine", 3): "mine 3",
    }
    source = DataFileImages(suite(tmp_path / "tasks", rows), run(tmp_path / "r", seen))
    sizes = {doc: [one.width - 8 for one in own] for (_, doc), own in source(list(seen)).items()}
    assert sizes == {0: [1], 1: [1, 3], 2: [3, 2, 1], 3: []}


def test_an_image_is_turned_upright_as_it_was_for_the_run(tmp_path):
    turned = Image.new("RGB", (8, 6), (1, 2, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    content = io.BytesIO()
    turned.save(content, "PNG", exif=exif)
    rows = [{"image": {"bytes": content.getvalue(), "path": None}}]
    upright = turned.transpose(Image.Transpose.ROTATE_270)
    results = run(tmp_path / "r", {("mine", 0): cluster(upright)})
    found = DataFileImages(suite(tmp_path / "tasks", rows), results)([("mine", 0)])
    assert found["mine", 0][0].size == (6, 8)


def test_a_task_without_data_is_left_out_with_a_warning(tmp_path, caplog):
    results = run(tmp_path / "r", {("pope", 0): "x"})
    assert DataFileImages(tmp_path, results)([("pope", 0)]) == {}
    assert f"no images of pope: no task file for pope in {tmp_path}" in caplog.text
    stock = TaskImages({"pope": 4}, tmp_path)
    assert stock([("pope", 0)]) == {}
    assert "no images of pope: no task file for pope" in caplog.text


def test_task_files_are_read_without_their_code_and_with_what_they_include(tmp_path):
    (tmp_path / "base.yaml").write_text("dataset_path: parquet\ntask: base\n")
    head = "include: ../base.yaml\ntask: mine\nprocess_docs: !function utils.no_such_code\n"
    files = suite(tmp_path / "tasks", [{"image": stored(picture(1))}], head)
    assert parquet_files("mine", files) == [[files / "own.parquet"]]
    (files / "own.parquet").unlink()
    with pytest.raises(ValueError, match="no file .*own.parquet"):
        parquet_files("mine", files)
    (files / "mine.yaml").write_text("task: mine\ndataset_path: lmms-lab/POPE\n")
    with pytest.raises(ValueError, match="mine.yaml names no parquet files"):
        parquet_files("mine", files)


def test_a_suite_of_ones_own_must_be_named(tmp_path):
    with pytest.raises(ValueError, match="must name the folder of the suite './mine'"):
        task_file_folder("./mine")
    assert task_file_folder("./mine", tmp_path) == tmp_path
    assert task_file_folder("mini") == MINI
    assert task_file_folder("hub") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is no YAML"),
        ("include: mine.yaml\ntask: mine\n", "mine.yaml includes itself"),
        ("include: 3\ntask: mine\n", "include must be a text or a list of texts, got 3"),
        ("include: none.yaml\ntask: mine\n", "none.yaml cannot be read: No such file"),
        ("task: mine\ndataset_path: parquet\ndataset_kwargs: 3\n", "names no parquet files"),
        ("task: mine\ndataset_kwargs: {data_files: [a]}\n", "names no parquet files"),
        ("task: mine\ndataset_kwargs: {data_files: {test: 3}}\n", "data_files of test must be"),
        ("- a list", "no task file for mine"),
        ("[" * 5000, "nested too deeply"),
        ("task: !unknown x", "is no YAML"),
    ],
)
def test_a_task_file_that_cannot_be_used_is_a_sentence(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "a folder.yaml").mkdir()
    with pytest.raises(ValueError, match=message):
        parquet_files("mine", tmp_path)


def folder_of(path, suite_name, tasks, **content):
    own = {"experiment": "try", "suite": "mini", "model": "m", "metric": "accuracy", **SETTINGS[0]}
    lines = [own | {"task": task, "documents": n} for task, n in tasks.items()]
    path.mkdir(exist_ok=True)
    records_frame(lines).to_csv(path / "records.csv", index=False)
    told = manifest(suite=suite_name, **content.pop("experiment", {}))
    (path / "manifest.json").write_text(json.dumps(told | content))
    return path


def test_commands_read_local_data_themselves_and_the_hub_s_through_lmms_eval(tmp_path):
    local = document_images(folder_of(tmp_path / "a", "mini", {"pope": 6}))
    assert isinstance(local, DataFileImages)
    assert local.task_files == MINI
    known = {"data": {"pope": {"documents": 7}}}
    hub = document_images(folder_of(tmp_path / "b", "hub", {"pope": 6, "gqa": 2}, **known))
    assert isinstance(hub, TaskImages)
    assert hub.tasks == {"pope": 7, "gqa": 2}
    assert hub.folder is None
    assert hub.first_frame
    frames = {"experiment": {"seed_video": "all_frames"}}
    hub = document_images(folder_of(tmp_path / "c", "hub", {"pope": 6}, **frames))
    assert isinstance(hub, TaskImages)
    assert not hub.first_frame
    own = folder_of(tmp_path / "d", "./mine", {"mine": 2})
    assert isinstance(document_images(own), NoDocuments)
    files = suite(tmp_path / "tasks", [{"image": stored(picture(1))}])
    assert isinstance(document_images(own, files), DataFileImages)
    (files / "mine.yaml").write_text("task: mine\ndataset_path: json\n")
    other = document_images(own, files)
    assert isinstance(other, TaskImages), "data in another format needs lmms-eval"
    assert other.folder == files
    assert isinstance(document_images(tmp_path), NoDocuments)

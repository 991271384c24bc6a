"""Images and references of a run's documents, from the embedded tasks."""

import numpy as np
import pytest
from PIL import Image

from otprune_lmms.reporting.figures.images import TaskImages, task_images


@pytest.fixture(scope="module")
def source():
    return task_images({"experiment": {"suite": "mini"}}, {"pope": 4, "ok_vqa_val2014": 3})


def test_documents_have_their_images(source):
    found = source([("pope", 0), ("pope", 1), ("ok_vqa_val2014", 2), ("pope", 99), ("gqa", 0)])
    assert list(found) == [("pope", 0), ("pope", 1), ("ok_vqa_val2014", 2)]
    for images in found.values():
        (image,) = images
        assert isinstance(image, Image.Image)
        assert min(image.size) > 100
    first, second = (np.asarray(found["pope", doc][0]) for doc in (0, 1))
    assert first.shape == second.shape


def test_documents_have_their_references(source):
    found = source.references([("ok_vqa_val2014", 0), ("pope", 1), ("gqa", 0)])
    assert set(found) == {("ok_vqa_val2014", 0), ("pope", 1)}
    assert all(text and isinstance(text, str) for texts in found.values() for text in texts)
    assert found["pope", 1][0] in ("yes", "no")


def test_a_task_without_data_is_left_out_with_a_warning(tmp_path, caplog):
    source = TaskImages({"pope": 4}, tmp_path)
    assert source([("pope", 0)]) == {}
    assert "no images of pope: no task file for pope" in caplog.text


def test_a_suite_of_ones_own_must_be_named():
    manifest = {"experiment": {"suite": "./mine"}}
    with pytest.raises(ValueError, match="must name the folder of the suite './mine'"):
        task_images(manifest, {"pope": 1})


def test_the_manifest_says_how_many_documents_were_asked(tmp_path):
    manifest = {"experiment": {"suite": "hub"}, "data": {"pope": {"documents": 7}}}
    source = task_images(manifest, {"pope": 6, "gqa": 2}, tmp_path)
    assert source.tasks == {"pope": 7, "gqa": 2}
    assert source.folder == tmp_path
    assert source.first_frame
    manifest["experiment"]["seed_video"] = "all_frames"
    assert not task_images(manifest, {}, tmp_path).first_frame

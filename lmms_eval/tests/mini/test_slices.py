"""The committed mini slices: sizes, stock prompts, true answers, and no image of training."""

import ast
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from features import jpeg
from formats import CAPTION, HINT, LETTER, OPTIONS, SHORT, UNSURE
from PIL import Image
from scenes import make_scene
from slices import SLICES

from otprune_lmms.engine import requests_of
from otprune_lmms.scoring.tasks import load_tasks

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "lmms_eval" / "otprune_lmms" / "tasks"
NAMES = [task for task, _ in SLICES]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_tasks(NAMES, FOLDER / "mini")


def documents(task):
    return task.test_docs() if task.has_test_docs() else task.validation_docs()


def test_every_benchmark_has_between_100_and_200_documents(tasks):
    assert len(tasks) == 11
    for name, task in tasks.items():
        assert 100 <= len(documents(task)) <= 200, name
    files = list(FOLDER.glob("mini_data/*/*.parquet"))
    assert len(files) == 11
    assert sum(file.stat().st_size for file in files) < 25 * 2**20


def lettered(choices):
    return "\n".join(f"{chr(65 + i)}. {choice}" for i, choice in enumerate(choices))


def expected(name, doc):
    """The prompt as the recipe's formats teach it."""
    if name in ("coco2017_cap_val", "flickr30k_test", "nocaps_val"):
        return CAPTION
    question = doc["question"]
    if name == "mme":
        return question.replace(" Please answer yes or no.", SHORT)
    if name == "ok_vqa_val2014":
        return question + UNSURE + SHORT
    if name == "mmbench_en_dev_static":
        letters = lettered([doc[c] for c in "ABCD" if doc[c] != "nan"])
        return f"{question} {OPTIONS}\n{letters}\n{LETTER}"
    if name == "seedbench":
        return f"{question}\n{lettered([doc[f'choice_{c}'] for c in 'abcd'])}{LETTER}"
    if name == "scienceqa_img":
        return f"Context: {HINT}\n{question}\n{lettered(doc['choices'])}{LETTER}"
    if name == "mmmu_val":
        if doc["question_type"] == "open":
            return f"{question}\n{SHORT}"
        return f"{question}\n{lettered(ast.literal_eval(doc['options']))}\n{LETTER}"
    return question + SHORT


@pytest.mark.parametrize("name", NAMES)
def test_stock_prompts_are_those_that_training_taught(tasks, name):
    docs = documents(tasks[name])
    requests = requests_of(tasks[name], name)
    assert len(requests) == len(docs)
    for request in requests:
        assert request.context == expected(name, docs[request.doc_id])
    for request in requests[::15]:
        assert all(image.mode == "RGB" for image in request.images())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_says_one_thing_only_is_near_chance(tasks, name):
    """Letters and yes/no are balanced, so that no constant answer does well."""
    docs = documents(tasks[name])
    column = {"scienceqa_img": "answer"}.get(name, "answer")
    if name in ("coco2017_cap_val", "flickr30k_test", "nocaps_val"):
        texts = [tuple(doc.get("answer") or doc.get("caption") or doc["annotations_captions"])
                 for doc in docs]  # fmt: skip
        assert len(set(texts)) > 90
        return
    answers = [str(doc["answers"][0] if name == "ok_vqa_val2014" else doc[column]) for doc in docs]
    most = max(answers.count(answer) for answer in set(answers)) / len(answers)
    assert most <= (0.5 if name in ("pope", "mme") else 0.42), name


def test_no_image_is_one_of_training(tasks):
    train = {hashlib.sha256(jpeg(make_scene("train", n))).digest() for n in range(30)}
    shrunk = {_small(io.BytesIO(jpeg(make_scene("train", n)))) for n in range(30)}
    seen = set()
    for task in tasks.values():
        data = documents(task).data
        name = "image" if "image" in data.column_names else "image_1"
        for config in data.column(name).to_pylist():
            for one in config if isinstance(config, list) else [config]:
                seen.add(one["bytes"])
    assert len(seen) > 700
    assert not {hashlib.sha256(one).digest() for one in seen} & train
    assert not {_small(io.BytesIO(one)) for one in sorted(seen)[:200]} & shrunk


def _small(file):
    image = Image.open(file)
    assert image.size == (256, 256)
    return np.asarray(image.resize((16, 16))).tobytes()


def test_a_slice_is_made_again_from_its_seeds(tasks):
    """Drawn again, an image is the committed one, up to the last bit of another machine's sine."""
    data = documents(tasks["coco2017_cap_val"]).data.column("image").to_pylist()
    for number in (0, 1, 17):
        images = (data[number]["bytes"], jpeg(make_scene("benchmark", number)))
        one, two = (np.asarray(Image.open(io.BytesIO(image)), dtype=float) for image in images)
        assert np.abs(one - two).mean() < 0.1


def test_seed_has_videos_whose_first_frame_holds_the_answer(tasks):
    docs = documents(tasks["seedbench"])
    videos = [doc for doc in docs if doc["data_type"] == "video"]
    assert len(videos) == 20
    assert all(len(doc["image"]) == 3 for doc in videos)
    assert all(len(doc["image"]) == 1 for doc in docs if doc["data_type"] == "image")


def test_mme_asks_in_pairs_of_yes_and_no(tasks):
    pairs: dict[str, list[str]] = {}
    for doc in documents(tasks["mme"]):
        pairs.setdefault(doc["question_id"], []).append(doc["answer"])
    assert len(pairs) == 70
    assert all(sorted(answers) == ["No", "Yes"] for answers in pairs.values())

"""The mini slices of the 11 benchmarks, in the schemas that lmms-eval's task code reads.

Every scene is of the split "benchmark", which training and its checks never see. Benchmarks draw
their scenes from their own ranges of numbers, so a larger slice of one changes no other.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from captions import captions
from datasets import Dataset, Features, Image, List, Value
from features import jpeg
from formats import CAPTION, HINT, options
from pyarrow.parquet import write_table
from questions import FAMILIES, YES_NO, Question, absent_name, article
from scenes import SIDE, Scene, make_scene

Row = dict[str, Any]
TEXT, WHOLE = Value("string"), Value("int64")
IMAGE = Image()


def _image(scene: Scene) -> dict[str, Any]:
    return {"bytes": jpeg(scene), "path": None}


def _rng(first: int) -> np.random.Generator:
    return np.random.default_rng([11, first])


def _asked(names: list[str], first: int, rows: int) -> Iterator[tuple[int, Scene, Question]]:
    """Yield (number, scene, question) with the families in turn, one question a scene."""
    rng, number, found = _rng(first), first, 0
    while found < rows:
        scene = make_scene("benchmark", number)
        question = FAMILIES[names[found % len(names)]](scene, rng)
        if question is not None:
            yield found, scene, question
            found += 1
        number += 1


def _texts(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, TEXT)


def coco() -> tuple[Features, list[Row]]:
    """Captions: 100 scenes, five references each."""
    features = Features(
        **_texts("question_id", "question", "file_name", "coco_url", "date_captured"),
        image=IMAGE, answer=List(TEXT), id=WHOLE, license=WHOLE, height=WHOLE, width=WHOLE,
    )  # fmt: skip
    rows = []
    for i in range(100):
        scene = make_scene("benchmark", i)
        name = f"{i + 1:012d}.jpg"
        rows.append({
            "question_id": name, "file_name": name, "image": _image(scene), "question": CAPTION,
            "answer": captions(scene), "id": i + 1, "license": 0, "coco_url": "",
            "height": SIDE, "width": SIDE, "date_captured": "",
        })  # fmt: skip
    return features, rows


def flickr() -> tuple[Features, list[Row]]:
    """Captions: 100 scenes."""
    features = Features(
        **_texts("img_id", "filename"), image=IMAGE, caption=List(TEXT), sentids=List(TEXT)
    )
    rows = []
    for i in range(100):
        scene = make_scene("benchmark", 1000 + i)
        sentences = [str(5 * i + j) for j in range(5)]
        rows.append({
            "img_id": str(i), "filename": f"{i}.jpg", "image": _image(scene),
            "caption": captions(scene), "sentids": sentences,
        })  # fmt: skip
    return features, rows


def nocaps() -> tuple[Features, list[Row]]:
    """Captions: 34 scenes like those of training, 33 with some unseen pairs, 33 of nothing else."""
    about = ("coco_url", "date_captured", "file_name", "open_images_id")
    features = Features(
        **_texts("image_domain", *(f"image_{name}" for name in about)),
        image=IMAGE, image_id=WHOLE, annotations_ids=List(WHOLE), annotations_captions=List(TEXT),
        image_height=WHOLE, image_width=WHOLE, image_license=WHOLE,
    )  # fmt: skip
    domains = {"in-domain": "never", "near-domain": "some", "out-domain": "only"}
    rows = []
    for i in range(100):
        domain = list(domains)[i % 3]
        scene = make_scene("benchmark", 2000 + i, unseen=domains[domain])
        rows.append({
            "image": _image(scene), "image_id": i, "image_domain": domain,
            "annotations_ids": [5 * i + j for j in range(5)],
            "annotations_captions": captions(scene), "image_height": SIDE, "image_width": SIDE,
            "image_license": 0, "image_file_name": f"{i}.jpg", "image_coco_url": "",
            "image_date_captured": "", "image_open_images_id": f"mini{i}",
        })  # fmt: skip
    return features, rows


def gqa() -> tuple[Features, list[Row]]:
    """Short answers: 150 scenes."""
    parts = _texts("structural", "semantic", "detailed")
    features = Features(
        **_texts("id", "imageId", "question", "answer", "fullAnswer", "semanticStr"),
        image=IMAGE, isBalanced=Value("bool"), types=parts,
    )  # fmt: skip
    names = ["colour", "kind", "where", "relation", "exists", "size", "count", "relation_yes"]
    rows = []
    for i, scene, question in _asked(names, 3000, 150):
        verify = question.choices == YES_NO
        rows.append({
            "id": f"{i:08d}", "imageId": f"n{scene.number}", "image": _image(scene),
            "question": question.text, "answer": question.answer.lower(),
            "fullAnswer": f"{question.answer}.", "isBalanced": True, "semanticStr": question.family,
            "types": {"structural": "verify" if verify else "query",
                      "semantic": question.family, "detailed": question.family},
        })  # fmt: skip
    return features, rows


def ok_vqa() -> tuple[Features, list[Row]]:
    """What is known of things: 120 scenes."""
    features = Features(
        **_texts("question_id", "question", "question_type", "answer_type"),
        image=IMAGE, answers=List(TEXT),
    )  # fmt: skip
    rows = []
    for i, scene, question in _asked(["colour_fact", "colour_fact", "exists_fact"], 4000, 120):
        rows.append({
            "question_id": str(i), "image": _image(scene), "question": question.text,
            "answers": 10 * [question.answer.lower()], "question_type": "knowledge",
            "answer_type": "yes/no" if question.choices == YES_NO else "other",
        })  # fmt: skip
    return features, rows


def _absent(scene: Scene, rng: np.random.Generator, category: str) -> str:
    """Return a pair that is not there; its colour and kind are both, one, or neither there."""
    kinds = {thing.kind for thing in scene.things}
    colours = {thing.colour for thing in scene.things}
    wanted = {"random": 0, "popular": 1, "adversarial": 2}[category]
    for _ in range(500):
        name = absent_name(scene, rng)
        colour, kind = name.split()
        if (colour in colours) + (kind in kinds) == wanted:
            return name
    return absent_name(scene, rng)


def pope() -> tuple[Features, list[Row]]:
    """Existence: 75 scenes, each with one object that is there and one that is not."""
    features = Features(
        **_texts("id", "question_id", "question", "answer", "image_source", "category"), image=IMAGE
    )
    rng = _rng(5000)
    rows: list[Row] = []
    for i in range(75):
        scene = make_scene("benchmark", 5000 + i)
        category = ("random", "popular", "adversarial")[i % 3]
        there = scene.things[rng.integers(len(scene.things))].name
        for name, answer in ((there, "yes"), (_absent(scene, rng, category), "no")):
            rows.append({
                "id": str(len(rows)), "question_id": str(len(rows) + 1), "image": _image(scene),
                "question": f"Is there {article(name)} in the image?", "answer": answer,
                "image_source": f"mini_{i}", "category": category,
            })  # fmt: skip
    return features, rows


MME = {
    "existence": "exists", "count": "count_yes", "position": "relation_yes", "color": "colour_yes",
    "scene": "ground_yes", "commonsense_reasoning": "exists_fact",
    "numerical_calculation": "more_yes",
}  # fmt: skip


def _pair(scene: Scene, family: str, rng: np.random.Generator) -> tuple[Question, Question] | None:
    """Return a question whose answer is yes and one whose answer is no."""
    found: dict[str, Question] = {}
    for _ in range(60):
        question = FAMILIES[family](scene, rng)
        if question is not None:
            found.setdefault(question.answer, question)
    return (found["Yes"], found["No"]) if len(found) == 2 else None


def mme() -> tuple[Features, list[Row]]:
    """Yes or no: seven categories, ten scenes each, two questions a scene."""
    features = Features(**_texts("question_id", "question", "answer", "category"), image=IMAGE)
    rng, number = _rng(6000), 6000
    rows: list[Row] = []
    for category, family in MME.items():
        found = 0
        while found < 10:
            scene = make_scene("benchmark", number)
            number += 1
            pair = _pair(scene, family, rng)
            if pair is None:
                continue
            for question in pair:
                rows.append({
                    "question_id": f"{category}/{found}.jpg", "image": _image(scene),
                    "question": f"{question.text} Please answer yes or no.",
                    "answer": question.answer, "category": category,
                })  # fmt: skip
            found += 1
    return features, rows


OPTION_FAMILIES = ["colour", "kind", "count", "where", "ground"]


def mmbench() -> tuple[Features, list[Row]]:
    """Options, sometimes only two: 120 scenes."""
    letters = ("A", "B", "C", "D")
    features = Features(
        **_texts("question", "hint", "answer", *letters, "category", "source", "L2-category",
                 "comment", "split"), index=WHOLE, image=IMAGE,
    )  # fmt: skip
    rng, rows = _rng(7500), []
    for i, scene, question in _asked([*OPTION_FAMILIES, "relation"], 7000, 120):
        choices, place = options(question, rng)
        choices += (4 - len(choices)) * ["nan"]
        level = "coarse" if question.family == "ground" else "finegrained"
        rows.append({
            "index": i, "image": _image(scene), "question": question.text, "hint": "nan",
            "answer": letters[place], **dict(zip(letters, choices, strict=True)),
            "category": question.family, "L2-category": f"{level}_perception", "source": "mini",
            "comment": "nan", "split": "dev",
        })  # fmt: skip
    return features, rows


def science() -> tuple[Features, list[Row]]:
    """Options behind a context: 120 scenes."""
    names = (
        "hint",
        "task",
        "grade",
        "subject",
        "topic",
        "category",
        "skill",
        "lecture",
        "solution",
    )
    features = Features(
        **_texts("question", *names), image=IMAGE, choices=List(TEXT), answer=Value("int8")
    )
    rng, rows = _rng(8500), []
    for _, scene, question in _asked(OPTION_FAMILIES, 8000, 120):
        choices, place = options(question, rng)
        rows.append({
            "image": _image(scene), "question": question.text, "choices": choices, "answer": place,
            "hint": HINT, "task": "closed choice", "grade": "grade2", "subject": "natural science",
            "topic": "pictures", "category": question.family, "skill": question.family,
            "lecture": "", "solution": "",
        })  # fmt: skip
    return features, rows


SUBJECTS = ("Art", "Design", "Geography", "Biology", "Math")


def mmmu() -> tuple[Features, list[Row]]:
    """Options as a string, a fifth of the questions without: 100 scenes, by subject."""
    features = Features(
        **_texts("id", "question", "options", "explanation", "img_type", "answer",
                 "topic_difficulty", "question_type", "subfield"),
        **{f"image_{i}": IMAGE for i in range(1, 8)},
    )  # fmt: skip
    rng, rows = _rng(9500), []
    for i, scene, question in _asked(OPTION_FAMILIES, 9000, 100):
        choices, place = options(question, rng)
        free = i % 5 == 4 if question.family != "ground" else i % 2 == 0
        rows.append({
            "id": f"validation_{SUBJECTS[i % 5]}_{i // 5 + 1}",
            "question": f"<image 1> {question.text}", "options": str([] if free else choices),
            "explanation": "", "img_type": "['Drawings']", "topic_difficulty": "Easy",
            "answer": question.answer if free else chr(65 + place), "subfield": question.family,
            "question_type": "open" if free else "multiple-choice", "image_1": _image(scene),
            **{f"image_{j}": None for j in range(2, 8)},
        })  # fmt: skip
    return features, rows


def seed() -> tuple[Features, list[Row]]:
    """Options over one picture, 100 times, or over the frames of a video, 20 times.

    A video's question is about its first frame; the frames after it show other scenes.
    """
    features = Features(
        **_texts("answer", *(f"choice_{c}" for c in "abcd"), "data_id", "data_type", "question",
                 "question_id"),
        question_type_id=Value("int16"), image=List(IMAGE), segment=List(WHOLE),
    )  # fmt: skip
    rng, rows = _rng(10500), []
    for i, scene, question in _asked(OPTION_FAMILIES, 10000, 120):
        choices, place = options(question, rng)
        video = i >= 100
        frames = [scene]
        if video:
            frames += [make_scene("benchmark", 11000 + 2 * i + j) for j in range(2)]
        rows.append({
            "answer": chr(65 + place),
            **{f"choice_{c}": text for c, text in zip("abcd", choices, strict=True)},
            "data_id": str(i), "data_type": "video" if video else "image",
            "question": question.text, "question_id": str(i), "segment": [0, 1] if video else [],
            "question_type_id": 1 + OPTION_FAMILIES.index(
                {"shape": "kind", "position": "where"}.get(question.family, question.family)
            ),
            "image": [_image(frame) for frame in frames],
        })  # fmt: skip
    return features, rows


SLICES: dict[tuple[str, str], Callable[[], tuple[Features, list[Row]]]] = {
    ("coco2017_cap_val", "val"): coco, ("flickr30k_test", "test"): flickr,
    ("nocaps_val", "validation"): nocaps, ("gqa", "testdev"): gqa,
    ("ok_vqa_val2014", "val2014"): ok_vqa, ("pope", "test"): pope, ("mme", "test"): mme,
    ("mmbench_en_dev_static", "dev"): mmbench, ("scienceqa_img", "test"): science,
    ("mmmu_val", "validation"): mmmu, ("seedbench", "test"): seed,
}  # fmt: skip


def write_slices(folder: Path) -> dict[str, int]:
    """Write ``<folder>/<task>/<split>-00000-of-00001.parquet`` and return the rows of each task."""
    counts = {}
    for (task, split), build in SLICES.items():
        features, rows = build()
        file = folder / task / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        table = Dataset.from_list(rows, features=features).data.table
        # A picture that several rows ask about is stored once: a dictionary that holds them all.
        write_table(
            table.replace_schema_metadata(features.arrow_schema.metadata),
            file,
            compression="zstd",
            dictionary_pagesize_limit=2**26,
        )
        counts[task] = len(rows)
    return counts

"""Hand-made documents of the 11 benchmarks, in their schemas, with right and wrong answers."""

import io
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Image, List
from PIL import Image as Pictures

from otprune_lmms.experiments.config import TASKS

SPLITS = {
    "coco2017_cap_val": "val",
    "flickr30k_test": "test",
    "gqa": "testdev",
    "mmbench_en_dev_static": "dev",
    "mme": "test",
    "mmmu_val": "validation",
    "nocaps_val": "validation",
    "ok_vqa_val2014": "val2014",
    "pope": "test",
    "scienceqa_img": "test",
    "seedbench": "test",
}
CAPTIONS = [
    ["a red ball lies on a green field.", "red ball on grass", "A ball in the U.S."],
    ["two cats sleep on a sofa", "cats on a couch", "the cats' sofa (old)"],
    ["a man rides a blue bicycle", "blue bike with a man", "someone cycles"],
    ["three birds sit on a wire", "birds on a line", "birds, three of them!"],
]
LETTERS = ["A", "B", "C", "D"]


def picture(number: int) -> dict[str, Any]:
    """A small image of its own colours, as a parquet file holds it."""
    image = Pictures.new("RGB", (42, 28), (40 * number % 256, 90, 200))
    image.paste((255, 255, 40 * number % 256), (4, 4, 4 + 4 * number % 30 + 4, 20))
    stored = io.BytesIO()
    image.save(stored, "PNG")
    return {"bytes": stored.getvalue(), "path": None}


def rows(task: str) -> list[dict[str, Any]]:
    """Four documents of a task."""
    return [ROWS[task](number) for number in range(4)]


def right(task: str) -> list[str]:
    """An answer of each document that scores best."""
    return [RIGHT[task](number) for number in range(4)]


def wrong(task: str) -> list[str]:
    """An answer of each document that scores worst."""
    if task in ("mme", "pope"):
        return ["no" if answer.lower() == "yes" else "yes" for answer in right(task)]
    if task in ("coco2017_cap_val", "flickr30k_test", "nocaps_val"):
        return ["qqq zzz"] * 4
    if task in ("mmbench_en_dev_static", "mmmu_val", "scienceqa_img", "seedbench"):
        return [LETTERS[(LETTERS.index(a) + 1) % 2] if a in "AB" else "Z" for a in right(task)]
    return ["xylophone"] * 4


def _choice(number: int) -> str:
    return LETTERS[number % 2]


def _mmmu(number: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": f"validation_Art_{number}",
        "question": "What is <image 1>?",
        "options": "['a dog', 'a cat']",
        "explanation": "",
        "img_type": "['P']",
        "answer": _choice(number),
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice",
        "subfield": "x",
        "image_1": picture(number),
    }
    return row | {f"image_{i}": None for i in range(2, 8)}


ROWS = {
    "coco2017_cap_val": lambda n: {
        "question_id": f"{n + 1:012d}.jpg",
        "file_name": f"{n + 1:012d}.jpg",
        "image": picture(n),
        "question": "Describe.",
        "answer": CAPTIONS[n],
        "id": n + 1,
    },
    "flickr30k_test": lambda n: {
        "image": picture(n),
        "caption": CAPTIONS[n],
        "sentids": ["0"],
        "img_id": str(n + 1),
        "filename": f"{n}.jpg",
    },
    "nocaps_val": lambda n: {
        "image": picture(n),
        "image_id": n + 1,
        "annotations_ids": [n],
        "annotations_captions": CAPTIONS[n],
        "image_domain": "near-domain",
    },
    "gqa": lambda n: {
        "id": str(n),
        "imageId": str(n),
        "question": "Which colour?",
        "answer": ["red", "blue"][n % 2],
        "fullAnswer": "It is.",
        "image": picture(n),
    },
    "mmbench_en_dev_static": lambda n: {
        "index": n + 1,
        "question": "Which animal?",
        "hint": "nan",
        "answer": _choice(n),
        "A": "ox",
        "B": "hen",
        "C": "nan",
        "D": "nan",
        "category": "object",
        "L2-category": "coarse",
        "image": picture(n),
        "source": "made",
        "comment": "nan",
        "split": "dev",
    },
    "mme": lambda n: {
        "question_id": f"existence/{n // 2}.jpg",
        "image": picture(n // 2),
        "question": f"Is there a {['dog', 'cat'][n % 2]}? Please answer yes or no.",
        "answer": ["Yes", "No"][n % 2],
        "category": "existence",
    },
    "mmmu_val": _mmmu,
    "ok_vqa_val2014": lambda n: {
        "question_id": str(n),
        "image": picture(n),
        "question": "What sport?",
        "answers": ["tennis"] * 10,
        "question_type": "one",
        "answer_type": "other",
    },
    "pope": lambda n: {
        "id": str(n),
        "question_id": str(n),
        "question": "Is there a dog?",
        "answer": ["yes", "no"][n % 2],
        "image_source": "made",
        "image": picture(n),
        "category": "adversarial",
    },
    "scienceqa_img": lambda n: {
        "image": picture(n) if n else None,
        "question": "Which?",
        "choices": ["iron", "wood"],
        "answer": n % 2,
        "hint": "",
        "task": "closed choice",
    },
    "seedbench": lambda n: {
        "answer": _choice(n),
        "choice_a": "one",
        "choice_b": "two",
        "choice_c": "three",
        "choice_d": "four",
        "data_id": str(n),
        "data_type": "image" if n < 3 else "video",
        "question": "How many?",
        "question_id": str(n),
        "question_type_id": 1,
        "image": [picture(n)] * (1 if n < 3 else 3),
        "segment": [0],
    },
}
RIGHT = {
    **{t: lambda n: CAPTIONS[n][0] for t in ("coco2017_cap_val", "flickr30k_test", "nocaps_val")},
    "gqa": lambda n: ["Red.", "blue"][n % 2],
    "mme": lambda n: ["Yes", "No"][n % 2],
    "pope": lambda n: ["Yes", "no"][n % 2],
    "ok_vqa_val2014": lambda n: "tennis",
    **{t: _choice for t in ("mmbench_en_dev_static", "mmmu_val", "scienceqa_img", "seedbench")},
}


GENERATION = {
    task: {"max_new_tokens": 4 + number, "temperature": 0, "do_sample": False}
    for number, task in enumerate(SPLITS)
}
"""Of hand-made suites: a tiny model never ends an answer, and tasks allow it up to 1024 tokens.

They differ, so that two tasks' questions about one image are two requests.
"""


def make_suite(folder: Path, tasks: list[str]) -> Path:
    """Write data and task files of some tasks like the mini suite's; return the tasks' folder."""
    (folder / "tasks").mkdir(parents=True)
    for task in tasks:
        split = SPLITS[task]
        data = folder / "mini_data" / task / f"{split}-00000-of-00001.parquet"
        data.parent.mkdir(parents=True)
        made = Dataset.from_list(rows(task))
        for column in made.column_names:
            if column.startswith("image_") and column[6:].isdigit() or column == "image":
                kind: Any = List(Image()) if task == "seedbench" else Image()
                made = made.cast_column(column, kind)
        made.to_parquet(data)
        override = yaml.safe_load((TASKS / "mini" / f"{task}.yaml").read_text())
        override["dataset_kwargs"]["data_files"] = {split: str(data)}
        override["generation_kwargs"] = GENERATION[task]
        (folder / "tasks" / f"{task}.yaml").write_text(yaml.safe_dump(override))
    return folder / "tasks"

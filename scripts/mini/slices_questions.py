"""Mini slices with short answers: GQA, OK-VQA, POPE, MME."""

import numpy as np
from datasets import Features, List, Value
from questions import FAMILIES, YES_NO, Question, absent_name, article
from scenes import Scene, make_scene
from slice_parts import BENCHMARK, IMAGE, TEXT, Row, asked, image_of, rng_of, texts


def gqa(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Short answers: 150 scenes."""
    parts = texts("structural", "semantic", "detailed")
    features = Features(
        **texts("id", "imageId", "question", "answer", "fullAnswer", "semanticStr"),
        image=IMAGE, isBalanced=Value("bool"), types=parts,
    )  # fmt: skip
    names = ["colour", "kind", "where", "relation", "exists", "size", "count", "relation_yes"]
    rows = []
    for i, scene, question in asked(names, 3000, 150, split):
        verify = question.choices == YES_NO
        rows.append({
            "id": f"{i:08d}", "imageId": f"n{scene.number}", "image": image_of(scene),
            "question": question.text, "answer": question.answer.lower(),
            "fullAnswer": f"{question.answer}.", "isBalanced": True, "semanticStr": question.family,
            "types": {"structural": "verify" if verify else "query",
                      "semantic": question.family, "detailed": question.family},
        })  # fmt: skip
    return features, rows


def ok_vqa(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """What is known of things: 120 scenes."""
    features = Features(
        **texts("question_id", "question", "question_type", "answer_type"),
        image=IMAGE, answers=List(TEXT),
    )  # fmt: skip
    rows = []
    for i, scene, question in asked(
        ["colour_fact", "colour_fact", "exists_fact"], 4000, 120, split
    ):
        rows.append({
            "question_id": str(i), "image": image_of(scene), "question": question.text,
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


def pope(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Existence: 75 scenes, each with one object that is there and one that is not."""
    features = Features(
        **texts("id", "question_id", "question", "answer", "image_source", "category"), image=IMAGE
    )
    rng = rng_of(5000, split)
    rows: list[Row] = []
    for i in range(75):
        scene = make_scene(split, 5000 + i)
        category = ("random", "popular", "adversarial")[i % 3]
        there = scene.things[rng.integers(len(scene.things))].name
        for name, answer in ((there, "yes"), (_absent(scene, rng, category), "no")):
            rows.append({
                "id": str(len(rows)), "question_id": str(len(rows) + 1), "image": image_of(scene),
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


def mme(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Yes or no: seven categories, ten scenes each, two questions a scene."""
    features = Features(**texts("question_id", "question", "answer", "category"), image=IMAGE)
    rng, number = rng_of(6000, split), 6000
    rows: list[Row] = []
    for category, family in MME.items():
        found = 0
        while found < 10:
            scene = make_scene(split, number)
            number += 1
            pair = _pair(scene, family, rng)
            if pair is None:
                continue
            for question in pair:
                rows.append({
                    "question_id": f"{category}/{found}.jpg", "image": image_of(scene),
                    "question": f"{question.text} Please answer yes or no.",
                    "answer": question.answer, "category": category,
                })  # fmt: skip
            found += 1
    return features, rows

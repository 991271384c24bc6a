"""Mini slices with options: MMBench, ScienceQA, MMMU, SEED-Bench."""

from datasets import Features, List, Value
from formats import HINT, options
from scenes import make_scene
from slice_parts import BENCHMARK, IMAGE, TEXT, WHOLE, Row, asked, image_of, rng_of, texts

OPTION_FAMILIES = ["colour", "kind", "count", "where", "ground"]


def mmbench(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Options, sometimes only two: 120 scenes."""
    letters = ("A", "B", "C", "D")
    features = Features(
        **texts("question", "hint", "answer", *letters, "category", "source", "L2-category",
                 "comment", "split"), index=WHOLE, image=IMAGE,
    )  # fmt: skip
    rng, rows = rng_of(7500, split), []
    for i, scene, question in asked([*OPTION_FAMILIES, "relation"], 7000, 120, split):
        choices, place = options(question, rng)
        choices += (4 - len(choices)) * ["nan"]
        level = "coarse" if question.family == "ground" else "finegrained"
        rows.append({
            "index": i, "image": image_of(scene), "question": question.text, "hint": "nan",
            "answer": letters[place], **dict(zip(letters, choices, strict=True)),
            "category": question.family, "L2-category": f"{level}_perception", "source": "mini",
            "comment": "nan", "split": "dev",
        })  # fmt: skip
    return features, rows


def science(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
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
        **texts("question", *names), image=IMAGE, choices=List(TEXT), answer=Value("int8")
    )
    rng, rows = rng_of(8500, split), []
    for _, scene, question in asked(OPTION_FAMILIES, 8000, 120, split):
        choices, place = options(question, rng)
        rows.append({
            "image": image_of(scene), "question": question.text, "choices": choices,
            "answer": place,
            "hint": HINT, "task": "closed choice", "grade": "grade2", "subject": "natural science",
            "topic": "pictures", "category": question.family, "skill": question.family,
            "lecture": "", "solution": "",
        })  # fmt: skip
    return features, rows


SUBJECTS = ("Art", "Design", "Geography", "Biology", "Math")


def mmmu(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Options as a string, a fifth of the questions without: 100 scenes, by subject."""
    features = Features(
        **texts("id", "question", "options", "explanation", "img_type", "answer",
                 "topic_difficulty", "question_type", "subfield"),
        **{f"image_{i}": IMAGE for i in range(1, 8)},
    )  # fmt: skip
    rng, rows = rng_of(9500, split), []
    for i, scene, question in asked(OPTION_FAMILIES, 9000, 100, split):
        choices, place = options(question, rng)
        free = i % 5 == 4 if question.family != "ground" else i % 2 == 0
        rows.append({
            "id": f"validation_{SUBJECTS[i % 5]}_{i // 5 + 1}",
            "question": f"<image 1> {question.text}", "options": str([] if free else choices),
            "explanation": "", "img_type": "['Drawings']", "topic_difficulty": "Easy",
            "answer": question.answer if free else chr(65 + place), "subfield": question.family,
            "question_type": "open" if free else "multiple-choice", "image_1": image_of(scene),
            **{f"image_{j}": None for j in range(2, 8)},
        })  # fmt: skip
    return features, rows


def seed(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Options over one image, 100 times, or over the frames of a video, 20 times.

    A video's question is about its first frame; the frames after it show other scenes.
    """
    features = Features(
        **texts("answer", *(f"choice_{c}" for c in "abcd"), "data_id", "data_type", "question",
                 "question_id"),
        question_type_id=Value("int16"), image=List(IMAGE), segment=List(WHOLE),
    )  # fmt: skip
    rng, rows = rng_of(10500, split), []
    for i, scene, question in asked(OPTION_FAMILIES, 10000, 120, split):
        choices, place = options(question, rng)
        video = i >= 100
        frames = [scene]
        if video:
            frames += [make_scene(split, 11000 + 2 * i + j) for j in range(2)]
        rows.append({
            "answer": chr(65 + place),
            **{f"choice_{c}": text for c, text in zip("abcd", choices, strict=True)},
            "data_id": str(i), "data_type": "video" if video else "image",
            "question": question.text, "question_id": str(i), "segment": [0, 1] if video else [],
            "question_type_id": 1 + OPTION_FAMILIES.index(
                {"shape": "kind", "position": "where"}.get(question.family, question.family)
            ),
            "image": [image_of(frame) for frame in frames],
        })  # fmt: skip
    return features, rows

"""MME perception: two questions about each image, whose score is a sum over categories.

The score of a category is accuracy plus the share of images with both answers right, in percent,
so that the best sum of its ten categories is 2000. Cognition's questions are answered too, and do
not count.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from otprune_lmms.benchmarks.aggregation import Aggregation, Frame, HeadlineTerms, details, divided
from otprune_lmms.benchmarks.groups import DocumentGroups
from otprune_lmms.benchmarks.options import yes_or_no
from otprune_lmms.benchmarks.record import Benchmark, PrintedName
from otprune_lmms.benchmarks.shares import DocumentResults, Share


def image(document: Mapping[str, Any]) -> Hashable:
    """Return the name of a document's image: its id is unique within a category only."""
    return document["category"], document["question_id"]


def shares(given: DocumentResults) -> dict[int, Share]:
    """Return 1 or 0 for each perception question, with its category and image."""
    found = {}
    for doc_id, value in given.values.items():
        if value is None:
            found[doc_id] = Share(None)
            continue
        detail = {name: str(value[name]) for name in ("category", "question_id")}
        found[doc_id] = Share(float(value["score"]), detail)
    return found


def category_terms(samples: Frame, scale: float) -> HeadlineTerms:
    """Return two terms for each category, at the first question of each image: points and images.

    Points of an image: 50 for each right answer, and 100 if both are right.

    Raises:
        ValueError: an image without two questions that count.
    """
    values = samples["value"].to_numpy(float)
    first, second, category = _pairs(samples)
    n = len(samples)
    owner, stratum = np.arange(n), np.zeros(n, int)
    owner[second] = first
    stratum[first] = stratum[second] = category
    right = values[first] + values[second]
    terms = np.zeros((n, 2 * (1 + category.max(initial=0))))
    terms[first, 2 * category] = 50.0 * right + 100.0 * (right == 2)
    terms[first, 2 * category + 1] = 1.0

    def score(sums: np.ndarray) -> np.ndarray:
        points, images = sums[..., 0::2], sums[..., 1::2]
        total = np.where(images > 0, divided(points, images), 0.0).sum(axis=-1)
        return scale * np.where(images.sum(axis=-1) > 0, total, np.nan)

    return HeadlineTerms(terms, ~np.isnan(values), stratum, owner, score)


def _pairs(samples: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of the two questions of each image that counts, and its category."""
    places = np.flatnonzero(samples["value"].notna().to_numpy())
    detail = details(samples.iloc[places], "category", "question_id")
    names = [f"{one['category']} {one['question_id']}" for one in detail]
    _, number, many = np.unique(np.array(names, str), return_inverse=True, return_counts=True)
    wrong = np.flatnonzero(many[number] != 2)
    if wrong.size:
        name = names[int(wrong[0])]
        raise ValueError(f"mme needs two values for every image, {name} has {names.count(name)}")
    categories = np.array([one["category"] for one in detail], str)
    category = np.unique(categories, return_inverse=True)[1]
    order = np.argsort(number, kind="stable")
    first, second = order[0::2], order[1::2]
    return places[first], places[second], category[first]


BENCHMARK = Benchmark(
    name="mme",
    task="mme",
    metric="mme_perception_score",
    column="MME-P",
    title="MME",
    folder="mme",
    scale=1.0,
    best=2000.0,
    digits=0,
    metric_words="score of 2000",
    shares=shares,
    options=yes_or_no,
    groups=DocumentGroups(image, size=2, common="image"),
    aggregation=Aggregation(category_terms, called="MME's sum", strata="category", best_share=1.0),
    counted="perception",
    ratio_divisor=20.0,  # as in TOPS and CDPruner
    tolerance=30.0,  # 1.5 points of a twentieth
    printed=(PrintedName("mme", "perception"),),
)

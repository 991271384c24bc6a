"""Documents that a task scores as one: both questions about an image of MME, MMBench's turned ones.

Where one of them cannot be asked about, the others say nothing either.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

from otprune_lmms.scoring.values import CIRCULAR


def together(task: str, documents: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[int, Hashable]:
    """Return for each document the name of what it is scored as a part of.

    Args:
        task: id of the task.
        documents: their numbers and their content.
    """
    return {doc_id: _name(task, doc_id, document) for doc_id, document in documents}


def with_company(groups: Mapping[int, Hashable], documents: Collection[int]) -> frozenset[int]:
    """Return documents, and all that are scored as one with any of them.

    Args:
        groups: what `together` returned.
        documents: numbers; ones that ``groups`` lacks stay as they are.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for doc_id, group in groups.items():
        members[group].append(doc_id)
    found = set(documents)
    for doc_id in documents:
        found.update(members[groups[doc_id]] if doc_id in groups else ())
    return frozenset(found)


def check_pairs(groups: Mapping[int, Hashable]) -> None:
    """Raise ``ValueError`` unless both questions about each of MME's images are there."""
    for group, count in Counter(groups.values()).items():
        if count != 2:
            image = " ".join(map(str, group)) if isinstance(group, tuple) else group
            raise ValueError(
                f"mme asks two questions about every image, {image} has {count} "
                f"among the {len(groups)} documents; choose an even limit"
            )


def _name(task: str, doc_id: int, document: Mapping[str, Any]) -> Hashable:
    if task == "mme":
        return document["category"], document["question_id"]
    if task.startswith("mmbench") and str(document.get("index", "")).isdecimal():
        return int(document["index"]) % CIRCULAR
    return "alone", doc_id

"""Documents that a benchmark scores as one.

If one document of a group cannot be used, the group has no score, so all of it is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DocumentGroups:
    """How a benchmark's documents are grouped.

    Attributes:
        key: returns the name of a document's group from the document; None for a document that is
            scored alone.
        size: number of documents of every group; None where it differs, or where parts of a group
            can be scored. With a size, the documents of a group must be adjacent in the data, so
            that a limit which is a multiple of the size cuts no group.
        common: what the documents of a group share, for error messages: "image".
    """

    key: Callable[[Mapping[str, Any]], Hashable | None]
    size: int | None = None
    common: str = "group"

    def of(self, documents: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[int, Hashable]:
        """Return the group of each document that is not scored alone.

        Args:
            documents: their numbers and their content.
        """
        named = ((doc_id, self.key(document)) for doc_id, document in documents)
        return {doc_id: group for doc_id, group in named if group is not None}

    def limit(self, limit: int | None) -> int | None:
        """Return the limit, raised so that it cuts no group; None stays None."""
        if limit is None or self.size is None:
            return limit
        return -(-limit // self.size) * self.size

    def check(self, benchmark: str, groups: Mapping[int, Hashable]) -> None:
        """Raise ``ValueError`` unless all groups have the required size.

        Args:
            benchmark: its name, for the message.
            groups: what `of` returned for the documents that are to be scored.
        """
        if self.size is None:
            return
        for group, count in Counter(groups.values()).items():
            if count != self.size:
                shown = " ".join(map(str, group)) if isinstance(group, tuple) else group
                raise ValueError(
                    f"{benchmark} needs {self.size} documents of every {self.common}, {shown} has "
                    f"{count} among the {len(groups)} documents; choose a limit that is a multiple "
                    f"of {self.size}"
                )


def with_group_members(
    groups: Mapping[int, Hashable], documents: Collection[int]
) -> frozenset[int]:
    """Return documents, and all that are in a group with any of them.

    Args:
        groups: what `DocumentGroups.of` returned.
        documents: numbers; a document without a group stays alone.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for doc_id, group in groups.items():
        members[group].append(doc_id)
    found = set(documents)
    for doc_id in documents:
        found.update(members[groups[doc_id]] if doc_id in groups else ())
    return frozenset(found)

"""Which questions go through the model together."""

from collections.abc import Iterator, Sequence

from otprune_lmms.engine.survey import Question


def batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Yield questions in batches of up to ``size``.

    A batch holds one task, split, kind and one set of generation settings. Questions about the same
    images stay together, so that an image's visual tokens are needed within a short time; otherwise
    long prompts come first: time estimates then err on the safe side, what does not fit into memory
    shows at once, and neighbours need little padding.
    """
    groups: dict[tuple, list[Question]] = {}
    for question in questions:
        request = question.request
        group = (request.task, request.split, request.kind, question.generation)
        groups.setdefault(group, []).append(question)
    for group in groups.values():
        ordered = _ordered(group)
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _ordered(questions: Sequence[Question]) -> list[Question]:
    longest: dict[tuple[str, ...], int] = {}
    for question in questions:
        length = _length(question)
        longest[question.images] = max(length, longest.get(question.images, 0))
    return sorted(
        questions,
        key=lambda q: (-len(q.images), -longest[q.images], q.images, -_length(q), q.digest),
    )


def _length(question: Question) -> int:
    return len(question.prompt) + len(question.request.continuation or "")

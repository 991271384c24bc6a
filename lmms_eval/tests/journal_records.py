"""Records of answers for tests of the journal."""

from pathlib import Path

from otprune_lmms.journal import Journal, Record


def record(number: int, **others) -> Record:
    """An answer, with text that is hard to write."""
    given = {
        "config": "c" * 8,
        "request": f"r{number}",
        "settings": {"method": "otprune", "keep_ratio": 0.098},
        "task": "pope",
        "split": "test",
        "doc_id": number,
        "index": 0,
        "kind": "generate",
        "text": f"answer {number}\n\u2028 é \ud800 \x00",
        "kept": (56, 56),
        "candidates": (576, 576),
        "new_tokens": 3,
        "seconds": {"generate": 0.125},
    }
    return Record(**{**given, **others})


def part(folder: Path, number: int = 0) -> Path:
    """A writer's file, by the order of names; as earlier versions named it if there is none."""
    found = sorted(folder.glob("part-*.jsonl"))
    return found[number] if number < len(found) else folder / f"part-{number:03d}.jsonl"


def write(folder: Path, *numbers: int, **header) -> None:
    """Write answers as a run does."""
    with Journal(folder, header) as journal:
        journal.append(*(record(number) for number in numbers))
        journal.flush()


def numbers(folder: Path) -> list[int]:
    """The answers that can be read."""
    with Journal(folder, readonly=True) as journal:
        return sorted(one.doc_id for one in journal)

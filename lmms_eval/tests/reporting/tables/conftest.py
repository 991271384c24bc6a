"""Hand-made records and manifests."""

import json

import pytest

from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.records import COLUMNS, records_frame

ORIGIN = {"hardware": "a computer", "commit": "abc"}


def record(row, task, metric, value, **others):
    """One line of a model at 57.6 of 576 tokens; the row is a method and its budget."""
    plain = dict.fromkeys(COLUMNS) | {
        "experiment": "try", "suite": "hub", "model": "tiny", "setting": row, "row": row,
        "name": row, "layer": 0, "keep_newlines": False, "settings": "{}",
        "changed_settings": "{}", "task": task, "metric": metric, "value": value, "documents": 10,
        "kept_tokens": 57.6, "visual_tokens": 576.0,
    }  # fmt: skip
    if row != "unpruned":
        method, budget = row.split("-")[:2]
        plain |= {"method": method, "name": method, "match": "kept"}
        plain |= {"k": int(budget[1:])} if budget[0] == "k" else {"keep_ratio": float(budget)}
    else:
        plain["kept_tokens"] = 576.0
    return plain | others


def some_records():
    """Three tasks; unpruned, OTPrune and two seeds of random at one budget."""
    second = {"seed": 1, "setting": "random-0.1-seed1"}
    return records_frame(
        [
            record("unpruned", "gqa", "exact_match", 0.8),
            record("unpruned", "mme", "mme_perception_score", 1500.0),
            record("unpruned", "mme", "mme_cognition_score", 300.0),
            record("unpruned", "flickr30k_test", "flickr_Bleu_4", 0.5),
            record("unpruned", "flickr30k_test", "flickr_CIDEr", 1.2),
            record("otprune-0.1", "gqa", "exact_match", 0.6),
            record("otprune-0.1", "mme", "mme_perception_score", 1200.0),
            record("otprune-0.1", "flickr30k_test", "flickr_CIDEr", 0.6),
            record("random-0.1", "gqa", "exact_match", 0.2, seed=0),
            record("random-0.1", "mme", "mme_perception_score", 300.0, seed=0),
            record("random-0.1", "flickr30k_test", "flickr_CIDEr", 0.3, seed=0),
            record("random-0.1", "gqa", "exact_match", 0.4, **second),
            record("random-0.1", "mme", "mme_perception_score", 600.0, **second),
            record("random-0.1", "flickr30k_test", "flickr_CIDEr", 0.5, **second),
        ]
    )


def plain_records(scores, **others):
    """Records of GQA and POPE in percent: {row: (gqa, pope)}."""
    tasks = (("gqa", "exact_match"), ("pope", "pope_f1_score"))
    return records_frame(
        [
            record(row, task, metric, value / 100, **others)
            for row, values in scores.items()
            for (task, metric), value in zip(tasks, values, strict=True)
        ]
    )


class Made:
    """What the tests of this folder share."""

    record = staticmethod(record)
    records = staticmethod(some_records)
    plain = staticmethod(plain_records)
    origin = ORIGIN
    manifest = Manifest("A try", origin=ORIGIN)

    @staticmethod
    def folder(path, records=None, **content):
        """A results folder; ``content`` goes over its manifest."""
        experiment = {
            "title": "A try",
            "models": [{"name": "tiny"}],
            "tasks": [{"id": task, "limit": None} for task in ("gqa", "mme", "flickr30k_test")],
            "limit": None,
            "published": [],
        }
        experiment |= content.pop("experiment", {})
        path.mkdir(parents=True, exist_ok=True)
        (some_records() if records is None else records).to_csv(path / "records.csv", index=False)
        manifest = {"origin": ORIGIN, "experiment": experiment} | content
        (path / "manifest.json").write_text(json.dumps(manifest))
        return path


@pytest.fixture(scope="session")
def made():
    return Made


@pytest.fixture(scope="session")
def entry_of():
    """A table's entry by row label and heading."""

    def find(table, label, heading, model=None):
        places = [place for place, column in enumerate(table.columns) if column.name == heading]
        rows = [
            row
            for part in table.parts
            if model is None or part.model == model
            for block in part.blocks
            for row in block.rows
            if row.label == label
        ]
        assert len(places) == len(rows) == 1, (label, heading)
        return rows[0].entries[places[0]]

    return find


@pytest.fixture(scope="session")
def values_of(entry_of):
    """A row's numbers by its label and their headings."""

    def find(table, label, *headings, model=None):
        return tuple(entry_of(table, label, heading, model).value for heading in headings)

    return find


@pytest.fixture(scope="session")
def in_order():
    """Those of a table's headings that are named, in the table's order; there may be others."""

    def find(table, *headings):
        return [column.name for column in table.columns if column.name in headings]

    return find

"""Made answers of experiments, scored by lmms-eval's own code."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lmms_eval.tasks.mme.utils import mme_aggregate_results
from lmms_eval.tasks.pope.utils import pope_aggregate_f1_score
from loguru import logger

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.results.columns import SETTING
from otprune_lmms.results.records import COLUMNS
from otprune_lmms.results.samples import SCHEMA, write_samples

CATEGORIES = ("existence", "count", "code_reasoning")


def seed_samples(task: str, right: np.ndarray, clusters: np.ndarray | None = None) -> pd.DataFrame:
    """Samples of one setting from what each document scores (0 to 1)."""
    n = len(right)
    clusters = np.arange(n) if clusters is None else clusters
    frame = pd.DataFrame({"task": task, "doc_id": np.arange(n), "value": np.asarray(right, float)})
    frame["cluster"] = [f"image {one}" for one in clusters]
    frame["detail"] = "{}"
    if task == "pope":
        truth = np.where(np.arange(n) % 3 == 0, "yes", "no")
        other = np.where(truth == "yes", "no", "yes")
        said = np.where(right == 1, truth, other)
        frame["detail"] = [
            json.dumps({"prediction": p, "truth": t}) for p, t in zip(said, truth, strict=True)
        ]
    if task == "mme":
        image = np.arange(n) // 2
        frame["cluster"] = [f"image {one}" for one in image]
        kinds = [CATEGORIES[one % len(CATEGORIES)] for one in image]
        frame["detail"] = [
            json.dumps({"category": kind, "question_id": f"{kind}/{one}.jpg"})
            for kind, one in zip(kinds, image, strict=True)
        ]
        # As the harness writes them: cognition has neither value nor detail.
        thinks = np.array([kind == "code_reasoning" for kind in kinds])
        frame.loc[thinks, "value"] = np.nan
        frame.loc[thinks, "detail"] = "{}"
    return frame


def stock_score(task: str, frame: pd.DataFrame) -> float:
    """The stored headline metric of one setting by lmms-eval's own aggregation."""
    counted = frame[frame["value"].notna()]
    detail = [json.loads(text) for text in counted["detail"]]
    if task == "pope":
        return pope_aggregate_f1_score(
            [{"prediction": one["prediction"], "ground_truth": one["truth"]} for one in detail]
        )
    if task == "mme":
        logger.disable("lmms_eval.tasks.mme")
        return mme_aggregate_results(
            [one | {"score": value} for one, value in zip(detail, counted["value"], strict=True)]
        )
    return float(counted["value"].mean())


def columns_of(setting: str) -> dict[str, Any]:
    """The columns of a setting that is written as above."""
    columns = dict.fromkeys(SETTING) | {"setting": setting, "row": setting, "name": setting}
    columns |= {"layer": 0, "settings": "{}", "changed_settings": "{}", "keep_newlines": False}
    method, *parts = setting.split("-")
    if method == "unpruned":
        return columns
    numbers = {
        name: int(n) for part in parts[1:] for name, n in [re.split(r"(?=\d)", part, maxsplit=1)]
    }
    row, _, _ = setting.partition("-seed")
    return columns | {"row": row, "method": method, "keep_ratio": float(parts[0])} | numbers


def experiment(
    right: Mapping[tuple[str, str], Mapping[str, np.ndarray]],
    clusters: Mapping[str, np.ndarray] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records and samples from what documents score, by (model, setting) and task.

    Settings are written "unpruned", "otprune-0.1", "random-0.1-seed1", "otprune-0.1-layer2".
    """
    samples, records = [], []
    for (model, setting), tasks in right.items():
        about = {"model": model, **columns_of(setting)}
        for task, values in tasks.items():
            frame = seed_samples(task, values, (clusters or {}).get(task))
            samples.append(frame.assign(**about))
            records.append(
                about
                | {
                    "experiment": "made",
                    "suite": "mini",
                    "task": task,
                    "metric": benchmark(task).metric,
                    "value": stock_score(task, frame),
                    "missing": None,
                    "documents": len(frame),
                    "kept_tokens": 10.0,
                    "visual_tokens": 100.0,
                }
            )
    return pd.DataFrame(records, columns=COLUMNS), pd.concat(samples, ignore_index=True)


def write_folder(folder, records: pd.DataFrame, samples: pd.DataFrame) -> None:
    """Write both as the harness does."""
    folder.mkdir(parents=True, exist_ok=True)
    records.to_csv(folder / "records.csv", index=False)
    texts = {"prompt": "?", "target": "t", "answer": "a"}
    counts = {"kept": 1, "candidates": 2, "new_tokens": 1, "truncated": 0}
    whole = samples.assign(**texts, **counts).reindex(columns=SCHEMA.names)
    columns = {
        name: column.astype(object).where(column.notna(), None).tolist()
        for name, column in whole.items()
    }
    write_samples(folder / "samples.parquet", [columns])


class Made:
    """The functions above, for tests."""

    seed_samples = staticmethod(seed_samples)
    stock_score = staticmethod(stock_score)
    experiment = staticmethod(experiment)
    write_folder = staticmethod(write_folder)


@pytest.fixture(scope="session")
def made():
    return Made

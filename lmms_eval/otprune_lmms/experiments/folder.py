"""Writes the results folder of an experiment: records, samples, manifest, measurements."""

import filecmp
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from otprune_lmms.experiments.config import Experiment
from otprune_lmms.experiments.outcome import Outcome
from otprune_lmms.files import atomic_write, read_file, write_text
from otprune_lmms.provenance import origin, peak_memory_mib, versions
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results import DERIVED, diagnostics
from otprune_lmms.results.diagnostics import DIAGNOSTICS, write_diagnostics
from otprune_lmms.results.kept_image import KEPT_IMAGE, write_kept_image
from otprune_lmms.results.manifest import MANIFEST, read_content
from otprune_lmms.results.records import RECORDS, records_frame
from otprune_lmms.results.samples import SAMPLES, write_samples
from otprune_lmms.results.stale import remove
from otprune_lmms.results.times import SELECTION_SECONDS, write_answer_seconds


def write_results(
    experiment: Experiment, outcome: Outcome, output: Path, command: str, seconds: float
) -> list[str]:
    """Write the outcome of a run into its results folder.

    If records, samples, the manifest (but for its ``runs``) or the commit change, pages, figures,
    diagnostics and kept patches of the earlier run are removed first: a folder never has a page
    beside numbers that it was not made from, whenever the run is stopped.

    Args:
        experiment: the experiment.
        outcome: outcome of its run.
        output: the results folder; created if it does not exist.
        command: command of the run, quoted for a shell.
        seconds: wall time of the whole run.

    Returns:
        Names of what was removed.

    Raises:
        OutputError: a file cannot be written (disk full, read-only); it is then unchanged.
    """
    output.mkdir(parents=True, exist_ok=True)
    before = _read(output)
    content = _continued(_manifest(experiment, outcome, command, seconds), before)
    records = records_frame(outcome.records).to_csv(index=False)
    removed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / SAMPLES
        write_samples(fresh, outcome.samples)
        same = _facts(content) == _facts(before) and _holds(output / RECORDS, records)
        if not same or not _equal(fresh, output / SAMPLES):
            made = (*DERIVED, DIAGNOSTICS, SELECTION_SECONDS, KEPT_IMAGE)
            removed = remove(output, made)
        write_text(output / RECORDS, records)
        with atomic_write(output / SAMPLES) as place:
            shutil.copyfile(fresh, place)
    write_answer_seconds(output, outcome.samples)
    write_text(output / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if outcome.diagnostics is not None:
        write_diagnostics(diagnostics.diagnostics_frame(outcome.diagnostics), output)
    if outcome.kept_image is not None:
        write_kept_image(outcome.kept_image, output)
    return removed


def _holds(path: Path, text: str) -> bool:
    try:
        return read_file(path) == text.encode()
    except OSError:
        return False


def _equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _read(folder: Path) -> dict[str, Any]:
    """Return the manifest of a results folder; an empty one where there is none of this format."""
    try:
        return read_content(folder)
    except ValueError:
        return {}


def _facts(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return what of a manifest pages depend on, with the commit of its last run."""
    try:
        commit = content["runs"][-1]["commit"]
    except (KeyError, IndexError, TypeError):
        return None
    plain = json.loads(json.dumps(content))
    return plain | {"runs": commit}


def _manifest(
    experiment: Experiment, outcome: Outcome, command: str, seconds: float
) -> dict[str, Any]:
    """Return the manifest of a run: origin, experiment, versions, data, counts, time, memory."""
    where = origin(command)
    run = {
        "commit": where["commit"],
        "command": command,
        "counts": outcome.counts,
        "seconds": outcome.seconds | {"all": round(seconds, 2)},
        "peak memory MiB": peak_memory_mib(),
    }
    return {
        "origin": where,
        "experiment": experiment.model_dump(mode="json"),
        "versions": versions(),
        "models": outcome.models,
        "hub": outcome.hub,
        "configs": [_config(*one) for one in experiment.pruning.labelled()],
        "shapes": outcome.shapes,
        "text_tokens": outcome.text_tokens,
        "data": outcome.data,
        "failed": outcome.failed,
        "runs": [run],
    }


def _config(config: PruningConfig, label: str | None) -> dict[str, Any]:
    return (
        config.columns()
        | ({} if label is None else {"label": label})
        | {
            "fingerprint": config.fingerprint,
            "answer_key": config.answer_key,
            "by_tile": config.by_tile,
            "config": config.as_dict(),
        }
    )


def _continued(content: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with the earlier runs of the same experiment before this one.

    A run that took all answers from the journal keeps the origin of the run that generated them.
    """
    try:
        same = all(before[name] == content[name] for name in ("models", "data"))
        same &= _experiment(before) == _experiment(content)
        kept = {name: before[name] for name in ("origin", "versions")}
        runs = [*before["runs"], *content["runs"]]
    except (ValueError, KeyError, TypeError):
        return content
    if not same:
        return content
    generated = sum(count["generated"] for count in content["runs"][0]["counts"].values())
    return content | ({} if generated else kept) | {"runs": runs}


def _experiment(content: dict[str, Any]) -> Experiment:
    """Return a manifest's experiment; keys that did not exist when it was written are defaults."""
    return Experiment.model_validate_json(json.dumps(content["experiment"]))

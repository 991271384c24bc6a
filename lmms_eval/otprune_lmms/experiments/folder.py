"""Writes the results folder of an experiment: records, samples, manifest, measurements."""

import json
import shutil
from pathlib import Path
from typing import Any

from otprune_lmms.experiments.config import Experiment
from otprune_lmms.experiments.outcome import Outcome
from otprune_lmms.files import write_text
from otprune_lmms.provenance import origin, peak_memory_mib, versions
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results import DERIVED, diagnostics
from otprune_lmms.results.diagnostics import DIAGNOSTICS, write_diagnostics
from otprune_lmms.results.kept_image import KEPT_IMAGE, write_kept_image
from otprune_lmms.results.manifest import MANIFEST
from otprune_lmms.results.records import RECORDS, records_frame
from otprune_lmms.results.samples import SAMPLES, write_samples


def write_results(
    experiment: Experiment, outcome: Outcome, output: Path, command: str, seconds: float
) -> None:
    """Write the outcome of a run into its results folder.

    If the records change, pages, figures, diagnostics and kept patches of the earlier run are
    removed, so that a folder never has a page of other numbers than its own.

    Args:
        experiment: the experiment.
        outcome: outcome of its run.
        output: the results folder; created if it does not exist.
        command: command of the run, quoted for a shell.
        seconds: wall time of the whole run.

    Raises:
        OutputError: a file cannot be written (disk full, read-only); it is then unchanged.
    """
    content = _manifest(experiment, outcome, command, seconds)
    output.mkdir(parents=True, exist_ok=True)
    content = _continued(content, output / MANIFEST)
    records = records_frame(outcome.records).to_csv(index=False)
    if not _holds(output / RECORDS, records):
        _remove(output, (*DERIVED, DIAGNOSTICS, KEPT_IMAGE))
    write_text(output / RECORDS, records)
    write_samples(output / SAMPLES, outcome.samples)
    write_text(output / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if outcome.diagnostics is not None:
        write_diagnostics(diagnostics.diagnostics_frame(outcome.diagnostics), output)
    if outcome.kept_image is not None:
        write_kept_image(outcome.kept_image, output)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _remove(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


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
        "configs": [_config(config) for config in experiment.pruning.configs()],
        "shapes": outcome.shapes,
        "text_tokens": outcome.text_tokens,
        "data": outcome.data,
        "failed": outcome.failed,
        "runs": [run],
    }


def _config(config: PruningConfig) -> dict[str, Any]:
    return config.columns() | {
        "fingerprint": config.fingerprint,
        "answer_key": config.answer_key,
        "config": config.as_dict(),
    }


def _continued(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the manifest with the earlier runs of the same experiment before this one.

    A run that took all answers from the journal keeps the origin of the run that generated them.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        same = all(before[name] == content[name] for name in ("models", "data"))
        same &= _experiment(before) == _experiment(content)
        runs, where = before["runs"], before["origin"]
    except (OSError, ValueError, KeyError):
        return content
    if not same:
        return content
    generated = sum(count["generated"] for count in content["runs"][0]["counts"].values())
    kept = {} if generated else {"origin": where, "versions": before["versions"]}
    return content | kept | {"runs": [*runs, *content["runs"]]}


def _experiment(content: dict[str, Any]) -> Experiment:
    """Return a manifest's experiment; keys that did not exist when it was written are defaults."""
    return Experiment.model_validate_json(json.dumps(content["experiment"]))

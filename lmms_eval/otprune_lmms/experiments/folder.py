"""Files of an experiment: records, tables, and where they come from."""

import json
from pathlib import Path
from typing import Any

from otprune_lmms.experiments.config import Experiment
from otprune_lmms.experiments.provenance import origin, peak_memory_mib, versions
from otprune_lmms.experiments.run import Outcome
from otprune_lmms.files import write_text
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting import tables
from otprune_lmms.reporting.tables import MANIFEST, RECORDS, Wide
from otprune_lmms.results.samples import SAMPLES, write_samples


def write_results(
    experiment: Experiment, outcome: Outcome, output: Path, command: str, seconds: float
) -> Wide:
    """Write records, manifest and tables of a run; return the table.

    Raises:
        ValueError: a run without records.
        OutputError: a file cannot be written (disk full, read-only); it is then as it was.
    """
    content = manifest(experiment, outcome, command, seconds)
    output.mkdir(parents=True, exist_ok=True)
    content = _continued(content, output / MANIFEST)
    write_text(output / RECORDS, tables.frame(outcome.records).to_csv(index=False))
    write_samples(output / SAMPLES, outcome.samples)
    write_text(output / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return remake(output)


def manifest(
    experiment: Experiment, outcome: Outcome, command: str, seconds: float
) -> dict[str, Any]:
    """Return what a run was: origin, experiment, versions, data, counts, time and memory."""
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
    return config.columns() | {"fingerprint": config.fingerprint, "config": config.as_dict()}


def _continued(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the manifest of a run, after those of earlier runs of the same experiment.

    A run that took all its answers from the journal leaves the origin as it was: that of the run
    that generated them.
    """
    try:
        before = json.loads(path.read_text())
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
    """Return a manifest's experiment; one written before a setting existed has its default."""
    return Experiment.model_validate_json(json.dumps(content["experiment"]))


def remake(output: Path) -> Wide:
    """Make the tables of a results folder anew from its records; return the table.

    Raises:
        ValueError: the folder has no records or manifest, or not of this format.
    """
    return tables.write_tables(output)

"""Scores by lmms-eval's own task code, from stored answers."""

from otprune_lmms.scoring.cache import ScoreCache
from otprune_lmms.scoring.captions import JavaError, java, shared_captions
from otprune_lmms.scoring.score import Sample, ScoringError, TaskScore, TaskScorer
from otprune_lmms.scoring.tasks import data_files, fingerprint, load_tasks

__all__ = [
    "JavaError",
    "Sample",
    "ScoreCache",
    "ScoringError",
    "TaskScore",
    "TaskScorer",
    "data_files",
    "fingerprint",
    "java",
    "load_tasks",
    "shared_captions",
]

"""Answers many requests under many pruning configs: each image is read and encoded once for all.

`tasks` makes requests of lmms-eval's instances; `prepare` reduces each to what decides its answer;
`request_set` holds them. `reading` and `ahead` read images on worker threads, `visual_store` holds
visual tokens, `visual_files` keeps them on disk, `batches` forms batches and orders them,
`rankings` ranks visual tokens once for all budgets, `responder` calls the model, `pending` tracks
which answers are missing, `memory` halves batches that do not fit, `phases` takes times, `session`
describes the run in the journal.
"""

from otprune_lmms.engine.answers import Answers, Counts, answer_of
from otprune_lmms.engine.engine import Engine
from otprune_lmms.engine.prepare import PreparedRequest
from otprune_lmms.engine.request_set import LeaveOut
from otprune_lmms.engine.requests import Answer, DocumentError, Request, RequestError
from otprune_lmms.engine.tasks import requests_from, requests_of
from otprune_lmms.engine.visual_files import VisualFolder

__all__ = [
    "Answer",
    "Answers",
    "Counts",
    "DocumentError",
    "Engine",
    "LeaveOut",
    "PreparedRequest",
    "Request",
    "RequestError",
    "VisualFolder",
    "answer_of",
    "requests_from",
    "requests_of",
]

"""Generate once, score many: each document read once, each image encoded once for all configs.

`tasks` makes requests of lmms-eval's instances; `prepare` reduces each to what decides its answer.
`reading` and `ahead` read images on worker threads, `visual_store` holds them encoded, `batches`
says what goes together, `rankings` ranks visual tokens once for all budgets, `responder` asks the
model, `pending` knows what is missing, `memory` halves what does not fit, `phases` takes times.
"""

from otprune_lmms.engine.answers import Answers, Counts, answer_of
from otprune_lmms.engine.engine import Engine
from otprune_lmms.engine.prepare import PreparedRequest
from otprune_lmms.engine.request_set import LeaveOut
from otprune_lmms.engine.requests import Answer, DocumentError, Request, RequestError
from otprune_lmms.engine.tasks import requests_from, requests_of

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
    "answer_of",
    "requests_from",
    "requests_of",
]

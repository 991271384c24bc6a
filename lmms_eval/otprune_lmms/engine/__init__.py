"""Generate once, score many: each document loaded once, each image encoded once for all configs.

`requests` says what is asked, `tasks` makes it from lmms-eval's instances, `identity` names it by
content, `survey` and `ahead` read images on worker threads, `visual` encodes them, `batches` says
what goes together, `generation` and `loglikelihood` answer, `memory` halves what does not fit.
"""

from otprune_lmms.engine.answers import Answers, Counts
from otprune_lmms.engine.asked import LeaveOut
from otprune_lmms.engine.engine import Engine
from otprune_lmms.engine.requests import Answer, DocumentError, Request, RequestError
from otprune_lmms.engine.tasks import requests_from, requests_of

__all__ = [
    "Answer",
    "Answers",
    "Counts",
    "DocumentError",
    "Engine",
    "LeaveOut",
    "Request",
    "RequestError",
    "requests_from",
    "requests_of",
]

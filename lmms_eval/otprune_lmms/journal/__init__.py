"""Answers on disk: appended as they are made, and read only where their checksum is right.

A `Journal` is a folder in which each writing process has a file of its own. `records` has the
content of a line, `lines` its format and checksum, `writer` the file of one process, `request_list`
the requests of a run.
"""

from otprune_lmms.journal.journal import Journal
from otprune_lmms.journal.records import JournalError, Key, Record, Report
from otprune_lmms.journal.request_list import (
    RequestList,
    RequestPlace,
    read_request_lists,
    write_request_list,
)

__all__ = [
    "RequestPlace",
    "Journal",
    "JournalError",
    "Key",
    "RequestList",
    "Record",
    "Report",
    "read_request_lists",
    "write_request_list",
]

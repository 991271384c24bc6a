"""Finished answers on disk, written as they come and trusted only where their checksum holds.

`Journal` is a folder; each process that writes has a file of its own in it. `records` is what a
line says, `lines` how it is written and checked, `writer` the file of one process, `request_list`
what a run asked.
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

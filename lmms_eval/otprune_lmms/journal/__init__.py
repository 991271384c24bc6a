"""Finished answers on disk, written as they come and trusted only where their checksum holds.

`Journal` is a folder; each process that writes has a file of its own in it. `records` is what a
line says, `lines` how it is written and checked, `writer` the file of one process, `ledger` what
was asked.
"""

from otprune_lmms.journal.journal import Journal
from otprune_lmms.journal.ledger import Ledger, RequestPlace, read_ledgers, write_ledger
from otprune_lmms.journal.records import JournalError, Key, Record, Report

__all__ = [
    "RequestPlace",
    "Journal",
    "JournalError",
    "Key",
    "Ledger",
    "Record",
    "Report",
    "read_ledgers",
    "write_ledger",
]

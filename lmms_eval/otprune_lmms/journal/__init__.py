"""Finished answers on disk, written as they come and trusted only where their checksum holds.

`Journal` is a folder; each process that writes has a file of its own in it. `records` is what a
line says, `lines` how it is written and checked, `writer` the file of one process. `fingerprint`,
what a model is known by, needs torch and is imported by itself.
"""

from otprune_lmms.journal.journal import Journal
from otprune_lmms.journal.records import JournalError, Key, Record, Report

__all__ = ["Journal", "JournalError", "Key", "Record", "Report"]

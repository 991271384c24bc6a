"""Upper bounds of settings: beyond them a value is a slip, and memory or threads would run out."""

LARGEST_BATCH = 4096
"""Requests in one call of the language model."""

MOST_DOCUMENTS = 10**9
"""Documents of a task."""

MOST_WORKERS = 256
"""Threads that read images."""

MOST_TOKENS = 10**6
"""Visual tokens that are kept of an image."""

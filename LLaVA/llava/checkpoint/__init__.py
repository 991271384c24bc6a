"""Checkpoints on disk or on a hub, read completely or not at all.

`files` finds them, `config` understands their configuration, `layouts` knows what their weights are
called, `shards` reads them, `write` makes one in LLaVA's original layout.
"""

from llava.checkpoint.errors import CheckpointError

__all__ = ["CheckpointError"]

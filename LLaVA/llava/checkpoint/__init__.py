"""Checkpoints in a folder or on the hub, read completely or not at all.

`files` finds them, `config` understands their configuration, `layouts` knows what their weights are
called, `shards` reads them, `assemble` puts a model's weights together.
"""

from llava.checkpoint.files import CheckpointError

__all__ = ["CheckpointError"]

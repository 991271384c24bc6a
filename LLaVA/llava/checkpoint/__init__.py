"""Checkpoints in a folder or on the hub, read completely or not at all.

`files` finds them, `schema` bounds what is read of their configuration, `config` understands it,
`layouts` knows what their weights are called, `shards` reads them, `lora` merges adapters,
`assemble` puts a model's weights together.
"""

from llava.checkpoint.errors import CheckpointError

__all__ = ["CheckpointError"]

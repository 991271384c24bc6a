"""The one exception of a checkpoint that cannot be used."""


class CheckpointError(ValueError):
    """A checkpoint is incomplete, damaged or of another kind; the message names the file."""

"""The error of all that cannot be read of a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint is incomplete, damaged or of another kind; the message names the file."""

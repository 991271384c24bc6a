"""How costs are measured."""

from dataclasses import dataclass

from otprune.cost import Convention
from otprune_lmms.engine.prompts import check_template
from otprune_lmms.engine.survey import SeedVideo


class BenchError(RuntimeError):
    """What cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How costs are measured.

    Attributes:
        batch_size: samples in one call of the language model.
        repeats: timed rounds over all samples and settings.
        warmup: rounds before that do not count.
        convention: formula of the multiply-adds.
        conversation: name of the conversation template.
        seed_video: see `Engine`.
        seed: of the order of the settings, which is drawn anew for every batch and round.

    Raises:
        ValueError: a number below the least that makes sense.
    """

    batch_size: int = 1
    repeats: int = 5
    warmup: int = 1
    convention: Convention = "3ndm"
    conversation: str = "vicuna_v1"
    seed_video: SeedVideo = "first_frame"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_template(self.conversation)
        for name, least in (("batch_size", 1), ("repeats", 1), ("warmup", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")

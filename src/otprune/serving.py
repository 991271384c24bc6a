"""What a server is told so that it prunes, and what it can do: for vLLM by `otprune_vllm`.

This module imports no server: settings are checked here before a model is loaded, by whoever
writes the command (``otprune serve``) and by the server itself.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from otprune.budget import check_keep_ratio
from otprune.layer_pruner import LayerPruner
from otprune.merger import Merger
from otprune.pruning import PAPER_RATIO
from otprune.registry import make_pruner
from otprune.selector import Selector
from otprune.signals import TEXT_SIGNALS

ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        "LlavaForConditionalGeneration": "llava",
        "LlavaNextForConditionalGeneration": "llava_next",
        "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
        "Qwen3VLForConditionalGeneration": "qwen3_vl",
        "LlavaOnevisionForConditionalGeneration": "llava_onevision",
        "InternVLForConditionalGeneration": "internvl",
        "Idefics3ForConditionalGeneration": "idefics3",
        "SmolVLMForConditionalGeneration": "idefics3",
        "Gemma3ForConditionalGeneration": "gemma3",
    }
)
"""Architectures that are served pruned, by the name in a checkpoint's ``config.json``, and the
module of `otprune_vllm.families` that has each."""

UNITS = frozenset({"gemma3", "idefics3"})
"""Modules whose images have a budget for each tile or enlarged part: these stand apart in a
prompt, whose placeholders are written before an image is encoded."""

PREFIX = "OTPrune"
"""What precedes an architecture's name to have it pruned."""

KEEP_RATIO = "otprune_keep_ratio"
"""The key of a request's own ratio in ``mm_processor_kwargs``."""

CONFIG_KEY = "otprune"
"""The field of the model's configuration that holds the settings; in ``mm_processor_kwargs``, the
key of a request's own settings, which replace all of them."""


@dataclass(frozen=True, slots=True)
class ServedPruning:
    """A method and the share of tokens that it keeps where a request does not say.

    Attributes:
        method: name of a selector that looks at the image alone, or of a merger that needs nothing
            but tokens and their raster, and whose count follows from that.
        keep_ratio: share of each image's tokens, in (0, 1].
        settings: of the method; ``preset`` may be among them.

    Raises:
        ValueError: no method of this name, a setting or ratio that it cannot have, a method that
            a server cannot run; one sentence.
    """

    method: str = "otprune"
    keep_ratio: float = PAPER_RATIO
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "keep_ratio", check_keep_ratio(self.keep_ratio))
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        self.instance()

    @classmethod
    def read(cls, given: object) -> "ServedPruning":
        """Return what a configuration's field ``otprune`` says; its defaults for None.

        Raises:
            ValueError: no mapping with names as keys, or as the class.
        """
        if given is None:
            return cls()
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise ValueError(f"otprune must be settings by their names, got {given!r}")
        settings = {str(key): value for key, value in given.items()}
        own = {name: settings.pop(name) for name in ("method", "keep_ratio") if name in settings}
        return cls(**own, settings=settings)

    def for_request(self, kwargs: Mapping[str, Any]) -> "ServedPruning":
        """Return what a request's own keyword arguments make of these settings.

        Args:
            kwargs: may have `CONFIG_KEY`, which replaces method, settings and ratio, and
                `KEEP_RATIO`, which replaces the ratio.

        Raises:
            ValueError: as `read`; a ratio that is not in (0, 1].
        """
        own = ServedPruning.read(kwargs[CONFIG_KEY]) if CONFIG_KEY in kwargs else self
        if KEEP_RATIO not in kwargs:
            return own
        return replace(own, keep_ratio=check_keep_ratio(kwargs[KEEP_RATIO], KEEP_RATIO))

    def plain(self) -> dict[str, Any]:
        """Return the settings as `read` takes them."""
        return {"method": self.method, "keep_ratio": self.keep_ratio, **self.settings}

    def instance(self) -> Selector | Merger:
        """Return the method with its settings.

        Raises:
            ValueError: a server cannot run it; the message says why.
        """
        method = make_pruner(self.method, **self.settings)
        if isinstance(method, LayerPruner):
            raise ValueError(
                f"method must be a selector to be served; {self.method} drops tokens inside the "
                "language model, whose layers a server runs itself"
            )
        asked = sorted(method.needs & TEXT_SIGNALS)
        if asked:
            raise ValueError(
                f"method must look at the image alone to be served; {self.method} reads the "
                f"question ({', '.join(asked)}), but a server encodes an image once for all "
                "questions"
            )
        if method.needs:
            raise ValueError(
                f"method must work with the tokens alone to be served; {self.method} needs "
                f"{', '.join(sorted(method.needs))}, which a server's vision encoder does not give"
            )
        if isinstance(method, Selector) and not method.fixed_count:
            raise ValueError(
                f"method must keep as many tokens as the budget says to be served; {self.method} "
                "has adaptive=True, so the count is not known before an image is encoded"
            )
        if isinstance(method, Merger) and method.count(1, (1, 1)) is None:
            raise ValueError(
                f"method must make as many tokens as an image's shape says to be served; "
                f"{self.method} does not tell how many it makes before it has the tokens"
            )
        return method

    def identity(self, version: str) -> str:
        """Return a text that differs wherever kept tokens may: for the keys of caches.

        Args:
            version: of this package.
        """
        parts = [version, self.method, dict(self.settings), self.keep_ratio]
        return json.dumps(parts, sort_keys=True, default=repr)

    def overrides(self, architecture: str) -> dict[str, Any]:
        """Return what vLLM's ``hf_overrides`` must be.

        Args:
            architecture: the model's own, a key of `ARCHITECTURES`.

        Raises:
            ValueError: another architecture.
        """
        if architecture not in ARCHITECTURES:
            known = ", ".join(sorted(ARCHITECTURES))
            raise ValueError(f"architecture must be one of {known}; got {architecture!r}")
        return {"architectures": [PREFIX + architecture], CONFIG_KEY: self.plain()}

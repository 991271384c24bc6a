"""What differs between the supported versions of transformers, in one place."""

import inspect
from collections.abc import Mapping
from typing import Any

import transformers
from packaging.version import Version
from transformers.masking_utils import create_causal_mask

CACHE = (
    "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
)
"""The argument for keys and values of earlier positions, which transformers 5.24 renamed.

A decoder's output has the same name for them.
"""

BEAMS_MIX_IMAGES = Version(transformers.__version__) < Version("5.19")
"""Whether `generate` gives beams wrong images where a prompt has several, as in 5.18."""


def cache_argument(call: Mapping[str, Any]) -> str:
    """Return the name by which a call of a decoder brings its cache, or would bring it."""
    return "past_key_values" if call.get("past_key_values") is not None else CACHE

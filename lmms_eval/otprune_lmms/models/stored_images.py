"""Encoded images as bytes, and back, bit for bit: what a file of visual tokens holds.

The bytes are a safetensors file: tensors, and in its ``__metadata__`` the key of the image, all
that is no tensor as JSON (``image``), and a SHA-256 over everything (``sha256``), which safetensors
itself lacks.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from otprune.pruning.image_tokens import ImageTokens
from otprune.signals import Signals

_LENGTH = 8
"""Bytes in which a safetensors file says how long its header is, little-endian."""

_OUTPUTS = "transformers."
"""Where the classes of a vision encoder's output must be from."""


class NotStorableError(ValueError):
    """An image with something that no file can hold: a function that encodes it again."""


def to_bytes(image: ImageTokens, key: str) -> bytes:
    """Return an image as the content of a file.

    Args:
        image: its tokens, with signals and all else that its class has.
        key: what it is found by.

    Raises:
        NotStorableError: a signal is a function (``encode_at``), or a class is not known.
    """
    tensors: dict[str, Tensor] = {}
    tree = {one.name: _plain(getattr(image, one.name), tensors) for one in fields(image)}
    known = {"key": key, "image": json.dumps(tree, sort_keys=True)}
    # Copies: safetensors refuses tensors that share memory, as views of one encoding may.
    stored = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    header, area = _split(safetensors.torch.save(stored, known))
    header["__metadata__"]["sha256"] = _digest(header, area)
    # Sorted: safetensors orders its metadata anew each time.
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text + area


def from_bytes(kind: type[ImageTokens], content: bytes, key: str) -> ImageTokens:
    """Return the image that a file holds, its tensors on the devices that they were on.

    Args:
        kind: class of the image.
        content: of the file.
        key: what it must have been stored under.

    Raises:
        ValueError: it is not as it was written, or of another key.
    """
    try:
        header, area = _split(content)
        known = header["__metadata__"]
        if known.pop("sha256") != _digest(header, area):
            raise ValueError("the checksum is wrong")
        if known["key"] != key:
            raise ValueError("the tokens of another image")
        tensors = safetensors.torch.load(content)
        tree = json.loads(known["image"])
        return kind(**{name: _value(one, tensors) for name, one in tree.items()})
    except (KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file, and the bytes of its tensors."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    if end > len(content):
        raise ValueError("its end is missing")
    return json.loads(content[_LENGTH:end]), content[end:]


def _digest(header: Mapping[str, Any], area: bytes) -> str:
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    total.update(area)
    return total.hexdigest()


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON holds it; tensors are put aside by name."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):03d}"
        tensors[name] = value
        return {"tensor": name, "device": str(value.device)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Signals):
        given = {one.name: getattr(value, one.name) for one in fields(value)}
        return {
            "signals": {
                name: _plain(one, tensors) for name, one in given.items() if one is not None
            }
        }
    # `ModelOutput` is a mapping too.
    if type(value).__module__.startswith(_OUTPUTS):
        name = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"output": name, "holds": {n: _plain(one, tensors) for n, one in value.items()}}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_plain(one, tensors) for one in value]}
    if isinstance(value, Mapping):
        return {"mapping": {name: _plain(one, tensors) for name, one in value.items()}}
    raise NotStorableError(f"an image that holds a {type(value).__name__} cannot be stored")


def _value(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return a value that `_plain` made JSON of."""
    if not isinstance(plain, dict):
        return plain
    if "tensor" in plain:
        return tensors[plain["tensor"]].to(plain["device"])
    if "output" in plain:
        holds = {name: _value(one, tensors) for name, one in plain["holds"].items()}
        return _output(plain["output"])(**holds)
    ((kind, content),) = plain.items()
    if kind in ("tuple", "list"):
        many = [_value(one, tensors) for one in content]
        return tuple(many) if kind == "tuple" else many
    given = {name: _value(one, tensors) for name, one in content.items()}
    return Signals(**given) if kind == "signals" else given


def _output(name: str) -> Any:
    """Return the class of a vision encoder's output by its name."""
    from transformers.utils.generic import ModelOutput

    module, _, inner = name.partition(":")
    found = getattr(import_module(module), inner) if module.startswith(_OUTPUTS) else None
    if not (isinstance(found, type) and issubclass(found, ModelOutput)):
        raise ValueError(f"{name} is no output of a model of transformers")
    return found

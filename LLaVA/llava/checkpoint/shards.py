"""Read weights: safetensors or ``.bin``, one file or many with an index."""

import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.headers import check_header
from llava.checkpoint.json_files import refuse_pointer

SOURCES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""Files that hold weights or name their shards, in order of preference."""

Weights = dict[str, Tensor]

_PLAIN_NAME = re.compile(r"[\w][\w.+=@ -]*\.(safetensors|bin)", re.ASCII)

_DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, LookupError),
    *(ArithmeticError, AssertionError, MemoryError, ImportError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, zlib.error),
)
"""What the readers of the two formats raise for damaged files."""


def read_weights(files: CheckpointFiles, wanted: Callable[[str], bool] = lambda _: True) -> Weights:
    """Return the weights of a checkpoint by their stored names, on the CPU.

    Files are mapped into memory where their format allows it, so that reading costs little until
    weights are copied to their device. ``.bin`` files are read with ``weights_only``.

    Args:
        files: the checkpoint.
        wanted: whether to return the weight of a name.

    Raises:
        CheckpointError: no weights; a shard of the index that is missing or damaged; a weight that
            is not in the shard that the index names, or that is in two shards.
    """
    for source in SOURCES:
        path = files.find(source)
        if path is None:
            continue
        if source.endswith(".index.json"):
            return _read_shards(files, source, wanted)
        return _read_file(path, wanted)
    if files.folder is None:
        raise CheckpointError(
            f"no weights of {files.name} are cached, and the hub has none or cannot be reached"
        )
    raise CheckpointError(f"{files.name} holds no weights: none of {', '.join(SOURCES)}")


def _read_shards(files: CheckpointFiles, index: str, wanted: Callable[[str], bool]) -> Weights:
    names = _index(files, index)
    weights: Weights = {}
    for shard in sorted(set(names.values())):
        path = files.find(shard)
        if path is None:
            raise CheckpointError(f"{shard} of {files.name} is missing; {index} names it")
        for name, tensor in _read_file(path, wanted).items():
            if name in weights:
                raise CheckpointError(f"{path} holds {name}, which another shard holds as well")
            weights[name] = tensor
    for name, shard in names.items():
        if wanted(name) and name not in weights:
            raise CheckpointError(f"{shard} of {files.name} lacks {name}, which {index} promises")
    return weights


def _index(files: CheckpointFiles, index: str) -> dict[str, str]:
    """Return the shard of each weight; shards are files of the checkpoint's own folder."""
    names = (files.json(index) or {}).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} of {files.name} has no weight_map")
    for name, shard in names.items():
        if not isinstance(shard, str) or _PLAIN_NAME.fullmatch(shard) is None:
            shown = repr(shard)[:80]
            raise CheckpointError(
                f"{index} of {files.name}: the weight_map of {name[:80]} must be the name of a "
                f".safetensors or .bin file in its own folder, got {shown}"
            )
    return names


def _read_file(path: Path, wanted: Callable[[str], bool]) -> Weights:
    if path.suffix == ".safetensors":
        return read_safetensors(path, wanted)
    return {name: tensor for name, tensor in read_bin(path).items() if wanted(name)}


def read_safetensors(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> Weights:
    """Return the tensors of a safetensors file.

    Raises:
        CheckpointError: damaged; the bytes of two tensors overlap.
    """
    refuse_pointer(path)
    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            # `safe_open` returns no dictionary: it can only be iterated through `keys`.
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118
    except (SafetensorError, *_DAMAGED) as error:
        reason = _reason(error)
        # What the system refused, such as memory, says nothing about the file.
        fault = "cannot be read" if "(os error " in reason else "is damaged"
        raise CheckpointError(f"{path} {fault}: {reason}") from None


def read_bin(path: Path) -> Weights:
    """Return the tensors of a file written by ``torch.save``.

    Raises:
        CheckpointError: damaged, or it holds anything but tensors by name.
    """
    refuse_pointer(path)
    try:
        # Files older than torch 1.6 are no zip archives and cannot be mapped.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path} is damaged or no file of weights: {_reason(error)}"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path} must hold tensors by name")
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path} must hold tensors by name, got the name {name!r:.80}")
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise CheckpointError(f"{path} holds {name}, which is no dense tensor of numbers")
    return content


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__

"""YAML files that people write: UTF-8, each key once, of a bounded size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20
"""Bytes of a file."""

MOST_NODES = 20_000
"""Values, keys and lists of a file, an alias counted as what it stands for."""


class YamlError(ValueError):
    """A file that is no usable YAML; the message names the file and the place."""


def read_yaml(path: Path, tags: Sequence[str] = ()) -> Any:
    """Return the content of a YAML file.

    Args:
        path: of the file.
        tags: tags of its own whose values are read as the texts behind them: ``!function``.

    Raises:
        YamlError: no YAML, not UTF-8, a key given twice in one mapping, larger than `LARGEST`, more
            than `MOST_NODES`, an alias inside what it stands for; a pipe or a device.
        OSError: the file cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Who reads a pipe waits until something is written.
        raise YamlError(f"{path} must be a file, and is a pipe or a device")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise YamlError(f"{path} must have at most {LARGEST} bytes, got more")
    try:
        loader = _Loader(content.decode("utf-8-sig"), tags)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _MistakeError as error:
        raise YamlError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise YamlError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise YamlError(f"{path} is no YAML that can be used: nested too deeply") from None
    except (ValueError, TypeError) as error:
        # A value that looks like a date or a number and is none, or a key that cannot be one.
        raise YamlError(f"{path} has a value that is none: {error}") from error


class _MistakeError(Exception):
    """What is wrong, without the file's name."""


class _Loader(yaml.SafeLoader):
    """Refuses what PyYAML accepts silently; see `read_yaml`."""

    def __init__(self, stream: str, tags: Sequence[str] = ()) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}
        texts = dict.fromkeys(tags, yaml.SafeLoader.construct_yaml_str)
        self.yaml_constructors = {**self.yaml_constructors, **texts}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        line = self.peek_event().start_mark.line + 1
        node = super().compose_node(parent, index)
        if alias and isinstance(node, yaml.CollectionNode) and id(node) not in self._sizes:
            raise _MistakeError(f"line {line}: an alias stands inside what it stands for")
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        node = super().compose_sequence_node(anchor)
        self._measure(node, node.value)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            # Several mappings may be merged into one.
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise _MistakeError(
                    f"key {key.value[:80]!r} is given twice, in lines {lines[name]} and {line}"
                )
            lines[name] = line
        self._measure(node, [one for pair in node.value for one in pair])
        return node

    def _measure(self, node: yaml.Node, parts: list[yaml.Node]) -> None:
        size = 1 + sum(self._sizes.get(id(one), 1) for one in parts)
        if size > MOST_NODES:
            line = node.start_mark.line + 1
            raise _MistakeError(f"line {line}: more than {MOST_NODES} values, aliases expanded")
        self._sizes[id(node)] = size

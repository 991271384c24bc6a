"""Lets the published torchvision be imported beside a CPU build of torch.

It is built for CUDA, and its C library cannot be loaded then; but all that transformers and
qwen-vl-utils use of it is Python, which only wants two operators to exist. `test_wrappers.sh` puts
this module on a ``.pth`` file.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Finder(importlib.abc.MetaPathFinder):
    """Defines the operators when torchvision is about to be imported."""

    library: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing; others do."""
        if fullname == "torchvision" and self.library is None:
            import torch

            if torch.version.cuda is None:
                self.library = torch.library.Library("torchvision", "DEF")
                for name in ("nms", "qnms"):
                    self.library.define(
                        f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    )
        return None


sys.meta_path.insert(0, _Finder())

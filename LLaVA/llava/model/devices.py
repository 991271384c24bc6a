"""The device on which a module computes, also when accelerate offloads its weights."""

from typing import Any

import torch
from torch import Tensor, nn


def execution_device(module: nn.Module) -> torch.device:
    """Return the device on which a module expects its input.

    Offloaded weights are on "meta" until their module is called; accelerate's hook has the device.
    """
    for part in module.modules():
        for hook in _hooks(part):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                return torch.device(device)
    devices = [parameter.device for parameter in module.parameters()]
    real = [device for device in devices if device.type != "meta"]
    return real[0] if real else torch.device("cpu")


def fetched(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter of a module, read from its offloaded copy if there is one."""
    parameter = getattr(module, name, None)
    if parameter is None or not parameter.is_meta:
        return parameter
    for hook in _hooks(module):
        if hook.weights_map is not None:
            return hook.weights_map[name]
    return parameter


def _hooks(module: nn.Module) -> list[Any]:
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        return []
    return list(getattr(hook, "hooks", [hook]))

"""How weights change: learning rate, optimiser and moving average of each parameter group."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lib.config import TrainConfig
from lib.training.muon import Muon
from lib.training.tasks import Task


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of ``step`` (from 0): linear warm-up, then constant or half a cosine down to 0 after the last."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def optimizer_of(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    settings = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
    if config.optimizer == "muon":
        return Muon(parameters, **settings)
    if config.optimizer == "adamax":
        return torch.optim.Adamax(parameters, foreach=True, **settings)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return kind(parameters, fused=fused, **settings)


def average_decay(config: TrainConfig, step: int) -> float:
    """Decay of the moving average at ``step``: early on a long memory would only remember the initial weights."""
    return min(config.ema, (1 + step) / (10 + step))


class Group:
    """One parameter group: its optimiser, its moving average, its gradients."""

    def __init__(self, name: str, config: TrainConfig, parameters: list[nn.Parameter], names: list[str]) -> None:
        self.name, self.config, self.parameters, self.names = name, config, parameters, names
        self.optimizer = optimizer_of(config, parameters)
        self.ema = [p.detach().clone() for p in parameters] if config.ema else []

    def clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def update(self, step: int) -> None:
        for entry in self.optimizer.param_groups:
            entry["lr"] = learning_rate(self.config, step)
        self.optimizer.step()
        if self.ema:
            with torch.no_grad():
                decay = average_decay(self.config, step)
                torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """Moving average and optimiser tensors by name, for a checkpoint."""
        tensors = {f"ema/{name}": tensor for name, tensor in zip(self.names, self.ema, strict=bool(self.ema))}
        for parameter, name in zip(self.parameters, self.names, strict=True):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{self.name}/{key}/{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, average in zip(self.names, self.ema, strict=bool(self.ema)):
            average.copy_(tensors[f"ema/{name}"])
        start = f"optimizer/{self.name}/"
        index = {name: position for position, name in enumerate(self.names)}
        state: dict[int, dict[str, Tensor]] = {}
        for entry, tensor in tensors.items():
            if not entry.startswith(start):
                continue
            key, name = entry[len(start) :].split("/", 1)
            parameter = self.parameters[index[name]]
            # a fused optimiser walks both memories side by side, so the layout must be that of the parameter
            same = tensor.shape == parameter.shape
            value = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if same else tensor.clone()
            state.setdefault(index[name], {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def parameter_groups(task: Task) -> dict[str, Group]:
    names = {parameter: name for name, parameter in task.named_parameters()}
    groups, taken = {}, set()
    for group, parameters in task.parameter_groups().items():
        parameters = list(parameters)
        if not parameters:
            raise ValueError(f"{task.name}: parameter group {group!r} is empty")
        for parameter in parameters:
            if parameter in taken:
                raise ValueError(f"{task.name}: {names[parameter]} is in two parameter groups")
            taken.add(parameter)
        groups[group] = Group(group, task.train_config(group), parameters, [names[p] for p in parameters])
    return groups

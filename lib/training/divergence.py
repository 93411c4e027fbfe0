"""Where a training stopped being finite: the weight, the batch or the layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lib.training.sampling import seed_all
from lib.training.tasks import Task


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)


def finite(value: Any) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in _tensors(value) if t.is_floating_point() or t.is_complex())


def first_bad(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    return next((name for name, tensor in named if tensor is not None and not finite(tensor)), None)


def first_bad_layer(task: Task, batch: Any, step: int, rank: int, group: str, autocast: Callable) -> str | None:
    """Where a loss stopped being finite: the same forward pass again, with an eye on every module's output."""
    if not finite(batch):
        return "the batch itself is not finite"
    if name := first_bad(task.named_parameters()):
        return f"the weight {name!r} is not finite"
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> Callable:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and not finite(output):
                found.append(f"the first layer with such an output is {name!r} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(watch(name, module)) for name, module in task.named_modules() if name]
    try:
        seed_all(task.seed, step, rank)
        with autocast():
            for name, loss, _ in task.training_step(batch, step):
                if found or (name == group and not finite(loss)):
                    break
    except Exception as error:  # the report must not hide the divergence behind an error of the second pass
        found.append(f"the forward pass could not be repeated ({type(error).__name__})")
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None

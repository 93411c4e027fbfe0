"""This process among those of a run: the only one, or one of those that ``torchrun`` started."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lib.errors import UserError, explain_os_error


class Processes:
    """What the processes of a run do together; with one process nothing is sent.

    Args:
        device: of this process; under ``torchrun`` its kind counts, and each local process takes an accelerator.
        precision: ``"32"`` or ``"bf16"`` (autocast).

    Attributes:
        rank, world: number of this process, and of all.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device, self.precision, self.rank, self.world = device, precision, 0, 1
        if not (distributed.is_available() and distributed.is_torchelastic_launched()):
            return
        if device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)
        if not distributed.is_initialized():
            patience = datetime.timedelta(hours=12)  # the others wait while rank 0 validates
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager:
        """What a forward pass runs in."""
        if self.precision == "32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def broadcast(self, value: Any) -> Any:
        """``value`` of the first process, in every process."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def broadcast_weights(self, module: nn.Module) -> None:
        """Give every process the first one's state of ``module``."""
        if self.world > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, where ``values`` were."""
        if self.world == 1:
            return values
        total = values.to(self.device, copy=True)
        distributed.all_reduce(total)
        return (total / self.world).to(values.device)

    def agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop."""
        return stop if self.world == 1 else float(self.mean(torch.tensor(float(stop)))) > 0

    def gathered(self, value: Any) -> list[Any]:
        """``value`` of every process."""
        if self.world == 1:
            return [value]
        everywhere: list[Any] = [None] * self.world
        distributed.all_gather_object(everywhere, value)
        return everywhere

    def on_first(self, function: Callable[[], None], folder: Path) -> None:
        """Run ``function``, which writes into ``folder``, on the first process; its `UserError` is raised in every
        process, so that none waits for ever."""
        error: UserError | None = None
        if self.first:
            try:
                function()
            except UserError as caught:
                error = caught
            except OSError as caught:
                error = explain_os_error(caught, folder, "write into")
        message = self.broadcast(None if error is None else str(error))
        if message is not None and not self.first:
            error = UserError(message)
        if error is not None:
            raise error

    def reduce(self, parameters: Sequence[nn.Parameter], loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Average gradients, loss and stop request over the processes, in one flat bucket.

        A gradient that some process lacks counts as zero there; one that all lack stays absent.
        """
        if self.world == 1:
            return loss, stop
        have = [parameter.grad is not None for parameter in parameters]
        flags = torch.tensor([*map(float, have), float(stop)], device=self.device)
        parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in parameters]
        kind = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        bucket = torch.cat([part.to(kind) for part in parts] + [flags.to(kind), loss.detach().reshape(1).to(kind)])
        bucket = self.mean(bucket)
        position = 0
        flags = bucket[-len(have) - 2 : -1].tolist()
        for parameter, anywhere in zip(parameters, flags[:-1], strict=True):
            piece = bucket[position : position + parameter.numel()]
            position += parameter.numel()
            if not anywhere:
                parameter.grad = None
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)  # keeps the memory format, which fused optimisers rely on
            parameter.grad.copy_(piece.view_as(parameter))
        return bucket[-1], flags[-1] > 0

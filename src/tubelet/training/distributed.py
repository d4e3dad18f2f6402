"""Several processes that train one model, started by torchrun; alone, all of this does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tubelet.errors import TubeletError


@dataclass(frozen=True)
class Processes:
    """rank of world; `main` is the one that writes and talks."""

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Over the processes, in place; each gets it."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in any process."""
        if self.world == 1:
            return here
        flag = torch.tensor(float(here), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)


@contextmanager
def processes(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """The group of torchrun, if it started this process, and the device of this one. Gloo on CPUs, NCCL on GPUs."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(), device
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise TubeletError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world), device
    finally:
        dist.destroy_process_group()


def wrap(module: nn.Module, parallel: str, where: Processes, device: torch.device) -> nn.Module:
    """DDP or FSDP2 around a module, in more than one process.

    A scorer that no loss reaches on a step gets no gradient, nor does the mask token of a detector that drops nothing:
    DDP is told to look for such parameters, and does not wait for them.
    """
    if where.world == 1:
        return module
    if parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (where.world,))
        for blocks in [m for m in module.modules() if isinstance(m, nn.ModuleList)]:
            for block in blocks:
                if any(True for _ in block.parameters()) and type(block).__name__.endswith("Block"):
                    fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh, reshard_after_forward=True)  # in place; in shards after a judgement too
        return module
    idle = any("plan." in name or "context.mask_token" in name for name, _ in module.named_parameters())
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=idle)


def unsynchronised(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Of the parts of a batch only the last sends its gradients round."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    if hasattr(module, "set_requires_gradient_sync"):
        module.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()


def whole_state(module: nn.Module, parallel: str, where: Processes) -> dict[str, Any]:
    """The state dict of all shards together; on the main process, elsewhere empty under FSDP."""
    if where.world > 1 and parallel == "fsdp":
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return module.state_dict()


def state_of(
    module: nn.Module, optimizer: torch.optim.Optimizer, parallel: str, where: Processes
) -> dict[str, dict[str, Any]]:
    """Of model and optimizer, whole, for a checkpoint."""
    if where.world > 1 and parallel == "fsdp":
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, optim = get_state_dict(module, optimizer, options=options)
        return {"model": model, "optimizer": optim}
    return {"model": module.state_dict(), "optimizer": optimizer.state_dict()}


def restore(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], parallel: str, where: Processes
) -> None:
    """What `state_of` gave, in place; each process has read the whole of it."""
    if where.world > 1 and parallel == "fsdp":
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        set_state_dict(
            module,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
        return
    module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])

"""Several processes for one run: torchrun or srun starts them, Lightning Fabric joins them."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy, Strategy
from torch import Tensor, nn

from morelib.errors import UserError


def launch(precision: str = "32-true", experts: bool = False) -> Fabric:
    """Join the processes that torchrun or srun started, one for each GPU; without them, run alone.

    There is nothing to set: how many they are, and where the others are, stands in the environment. They talk through
    NCCL where there are GPUs, else through gloo. May be called again. `experts` says that some parameters may take no
    part in a step: a process then does not wait for their gradients. Raises UserError for more processes on a node
    than it has GPUs, and for SLURM tasks that are not equally many on each node.
    """
    per_node, nodes, environment = _started()
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    strategy: Strategy | str = "auto"
    if per_node * nodes > 1:
        if accelerator == "cuda" and per_node > torch.cuda.device_count():
            raise UserError(
                f"{per_node} processes on a node of {torch.cuda.device_count()} GPUs; start one for each GPU"
            )
        strategy = DDPStrategy(find_unused_parameters=experts)
        # Channels-last gradients are copied once more on their way; that is all this warning means.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    fabric = Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=per_node,
        num_nodes=nodes,
        precision=precision,  # type: ignore[arg-type]
        plugins=environment,
    )
    fabric.launch()
    return fabric


def _started() -> tuple[int, int, ClusterEnvironment]:
    """Processes on each node, nodes, and how they find each other."""
    if dist.is_torchelastic_launched():
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return per_node, int(os.environ["WORLD_SIZE"]) // per_node, TorchElasticEnvironment()
    tasks = int(os.environ.get("SLURM_NTASKS", 1))
    # A step is what srun starts; the batch script itself is alone, however many tasks the job has.
    if tasks > 1 and "SLURM_STEP_ID" in os.environ:
        per_node = int(os.environ.get("SLURM_NTASKS_PER_NODE", 0))
        if not per_node or tasks % per_node:
            raise UserError(f"SLURM: {tasks} tasks, not equally many on each node; give --ntasks-per-node")
        return per_node, tasks // per_node, SLURMEnvironment()
    return 1, 1, LightningEnvironment()


def is_main() -> bool:
    """Whether this process writes what belongs to all: the first of several, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """Run a block in the main process, then in the others: what the first makes, they find."""
    if not is_main():
        wait_for_all()
    try:
        yield
    finally:  # after an error too: the others meet the same one, and nobody waits
        if is_main():
            wait_for_all()


def share_buffers(model: nn.Module) -> None:
    """Give all processes the main one's running statistics, as every training step begins."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean over all processes, the same in each; `values` itself in one. `values` stay what they are."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()

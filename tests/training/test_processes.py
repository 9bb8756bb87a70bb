"""Processes that torchrun or srun started find each other; one alone needs nobody."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from morelib.errors import UserError
from morelib.training.processes import is_main, launch, main_first, mean_over_processes
from tests.pair import Pair, pair_of, torchrun


def of_two_nodes(rank: int, port: int) -> dict[str, str]:
    """`torchrun --nnodes 2 --nproc-per-node 1`, both nodes being this machine."""
    return torchrun(rank, port) | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": str(rank)}


def srun(rank: int, port: int) -> dict[str, str]:
    """`srun --nodes 2 --ntasks-per-node 1`, as SLURM tells its tasks; here the main node must be told too."""
    return {
        "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_NODEID": str(rank),
        "SLURM_NODELIST": "node[1-2]", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def look(rank: int) -> dict[str, Any]:
    launch()
    fabric = launch()  # again, as training does after the command
    order: list[bool] = []
    with main_first():
        order.append(is_main())
    return {
        "rank": fabric.global_rank,
        "size": fabric.world_size,
        "main": is_main(),
        "mean": mean_over_processes(torch.tensor([float(rank), 4.0])).tolist(),
        "device": str(fabric.device),
    }


COMMON = {"size": 2, "mean": [0.5, 4.0], "device": "cpu"}
FOUND = [COMMON | {"rank": rank, "main": rank == 0} for rank in (0, 1)]


def test_processes_of_one_node_find_each_other(pair: Pair) -> None:
    assert pair(look) == FOUND


@pytest.mark.parametrize("environment", [of_two_nodes, srun])
def test_processes_of_two_nodes_find_each_other(environment: Callable[[int, int], dict[str, str]]) -> None:
    with pair_of(environment) as pair:
        assert pair(look) == FOUND


def fail_in_main(rank: int) -> str:
    launch()
    with main_first():
        raise UserError(f"no data for {rank}")


def test_what_fails_in_the_main_process_fails_in_all(pair: Pair) -> None:
    assert [str(error) for error in pair(fail_in_main)] == ["no data for 0", "no data for 1"]


@pytest.mark.parametrize(
    "job", [{}, {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_ID": "1"}]
)
def test_without_torchrun_and_srun_a_process_is_alone(
    job: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch script itself too: only what srun starts in it belongs together."""
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert launch().world_size == 1
    assert not torch.distributed.is_initialized()
    assert is_main()


def test_tasks_that_nodes_do_not_share_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (srun(0, 1) | {"SLURM_NTASKS": "3", "SLURM_NTASKS_PER_NODE": "2"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"3 tasks, not equally many on each node; give --ntasks-per-node"):
        launch()


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in torchrun(0, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"2 processes on a node of 1 GPUs; start one for each GPU"):
        launch()

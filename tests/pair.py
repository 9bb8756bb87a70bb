"""Two real processes that talk through gloo, started as torchrun starts them."""

import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

SECONDS = 300  # far more than any test needs; a hang becomes a failure


class Pair:
    """`pair(function, *arguments)` calls function(rank, *arguments) in both and gives the two results.

    An exception is a result too. Functions and arguments are pickled, so functions stand at the top of a module.
    """

    def __init__(self, environment: Callable[[int, int], dict[str, str]]) -> None:
        context = get_context("spawn")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.connections, self.processes = [], []
        for rank in (0, 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, environment(rank, port)), daemon=True)
            process.start()
            self.connections.append(ours)
            self.processes.append(process)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for rank, connection in enumerate(self.connections):
            connection.send((function, (rank, *arguments)))
        results = []
        for connection in self.connections:
            assert connection.poll(SECONDS), f"{function.__name__} hangs"
            results.append(connection.recv())
        return results

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


@contextmanager
def pair_of(environment: Callable[[int, int], dict[str, str]]) -> Iterator[Pair]:
    """Two processes that find `environment(rank, port)` in theirs."""
    pair = Pair(environment)
    try:
        yield pair
    finally:
        pair.close()


def torchrun(rank: int, port: int) -> dict[str, str]:
    """What `torchrun --nproc-per-node 2` tells its processes."""
    return {
        "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    while True:
        function, arguments = connection.recv()
        try:
            result = function(*arguments)
        except BaseException as error:
            result = error
        connection.send(result)

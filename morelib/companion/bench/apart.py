"""Networks that are measured by turns, on a processor each in a process of its own.

Freed memory goes back to the system or stays, as the C library sees fit, and what comes again comes page by page,
filled with zeros. In one process that depends on what the other networks left behind: fastMRI's training step took
between 6.7 and 10.6 seconds there. Whoever uses a network has one of them in a process, so that is what is measured. On
a GPU PyTorch keeps memory itself, and one process holds all.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from morelib.companion.bench.network import OnPart, Runner, Setting, times
from morelib.errors import UserError

Build = Callable[[Setting], nn.Module]

# Forked from a process that has the libraries loaded and has computed nothing yet.
_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@contextmanager
def runners(setting: Setting, builds: Mapping[str, Build]) -> Iterator[dict[str, "Runner | Apart"]]:
    """A runner of each network, for as long as the context lasts. What builds one can be pickled."""
    if setting.device != "cpu":
        yield {name: Runner(build(setting), setting) for name, build in builds.items()}
        return
    with ExitStack() as stack:
        apart: dict[str, Runner | Apart] = {}
        for name, build in builds.items():
            apart[name] = started = Apart(name, setting, build)
            stack.callback(started.stop)
        yield apart


def times_of(
    running: Mapping[str, "Runner | Apart"], kind: str, setting: Setting, on_part: OnPart
) -> dict[str, float]:
    """Median seconds by network of a `forward` pass or a `step`, as `kind` says; see `times`."""
    took = times({f"{name}, {kind}": getattr(runner, kind) for name, runner in running.items()},
                 setting, on_part)  # fmt: skip
    return dict(zip(running, took.values(), strict=True))


class Apart:
    """A `Runner` in a process of its own: what is asked of it is done there.

    Raises UserError where the process ends before it answers.
    """

    def __init__(self, name: str, setting: Setting, build: Build) -> None:
        self.name = name
        self._connection, theirs = _processes.Pipe()
        # A copy of the setting has not made its batch yet, which so need not be sent.
        work = theirs, replace(setting), build, torch.get_num_threads()
        self._process = _processes.Process(target=_serve, args=work, daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does

    def forward(self) -> Any:
        """`Runner.forward`, as an array."""
        return self._ask("forward")

    def step(self) -> None:
        """`Runner.step`."""
        self._ask("step")

    def fill_cache(self) -> None:
        """`Runner.fill_cache`."""
        self._ask("fill_cache")

    def operations(self) -> int:
        """`Runner.operations`."""
        return int(self._ask("operations"))

    def step_memory(self) -> int:
        """`Runner.step_memory`."""
        return int(self._ask("step_memory"))

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _ask(self, method: str) -> Any:
        try:
            self._connection.send(method)
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise UserError(
                f"bench: the process of {self.name} ended (exit code {self._process.exitcode}), perhaps for want of"
                " memory; give a smaller --size"
            ) from error


def _serve(connection: Connection, setting: Setting, build: Build, threads: int) -> None:
    """Do what comes through the pipe, until it closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the process that asks, which then ends this one
    torch.set_num_threads(threads)
    runner = Runner(build(setting), setting)
    while True:
        try:
            method = connection.recv()
        except EOFError:
            return
        answer = getattr(runner, method)()
        connection.send(answer.numpy() if isinstance(answer, torch.Tensor) else answer)

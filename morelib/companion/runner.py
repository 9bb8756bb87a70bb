"""Starting and stopping the processes that run notebooks."""

import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morelib.companion.execute import PREFIX

_GRACE_S = 10  # for a kernel to shut down before it is killed


@dataclass(frozen=True)
class Cost:
    """What a notebook took: wall time, and the kernel's largest resident memory where the system tells."""

    seconds: float
    peak_memory_mb: float | None


class NotebookFailed(Exception):
    """A cell raised, or the kernel died. The message says which and ends with the cell's source."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Runner:
    """Runs notebooks, each in a process of its own, from any number of threads; `stop` ends them all."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self, notebook: Path, target: Path, parameters: Mapping[str, Any], on_cell: Callable[[int, int], None]
    ) -> Cost:
        """Execute `notebook` into `target`, calling `on_cell(cell, of)` as each cell starts.

        Raises NotebookFailed; `target` then holds what was reached, if the kernel got that far.
        """
        started, last = time.monotonic(), {}
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._started(notebook, target, parameters) as process:
            assert process.stdout is not None
            tail: deque[str] = deque(
                maxlen=20
            )  # of everything that is not an event, in case the process dies
            for line in process.stdout:
                if not line.startswith(PREFIX):
                    tail.append(line)
                    continue
                last = json.loads(line.removeprefix(PREFIX))
                if "cell" in last:
                    on_cell(last["cell"], last["of"])
            process.wait()
        seconds = time.monotonic() - started
        if "error" not in last:
            raise NotebookFailed(
                f"the process ended with code {process.returncode}\n{''.join(tail)}", seconds
            )
        if error := last["error"]:
            raise NotebookFailed(f"{error['name']}: {error['message']}\n\n{error['cell']}".strip(), seconds)
        return Cost(seconds, last["peak_memory_mb"])

    @contextmanager
    def _started(self, notebook: Path, target: Path, parameters: Mapping[str, Any]) -> Any:
        command = [sys.executable, "-m", "morelib.companion.execute"]
        with self._lock:
            if self._stopped:
                raise RuntimeError("stopped")
            # A session of its own: Ctrl-C reaches this process only, which then stops the others in order.
            process = subprocess.Popen(
                [*command, str(notebook), str(target), json.dumps(dict(parameters))],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
            self._processes.add(process)
        try:
            with process:
                yield process
        finally:
            with self._lock:
                self._processes.discard(process)
            if self._stopped:
                raise RuntimeError("stopped")

    def stop(self) -> None:
        """End all running notebooks with their kernels, and start no more."""
        with self._lock:
            self._stopped = True
            processes = list(self._processes)
        for process in processes:
            process.terminate()  # nbclient then shuts its kernel down
        deadline = time.monotonic() + _GRACE_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()  # the kernel notices that its parent is gone

"""Run one notebook in this process: `python -m morelib.companion.execute IN OUT PARAMETERS`.

The run-all starts one such process per notebook, so that each has its own environment, its peak memory can be
measured, and it can be stopped together with its kernel. Events go to standard output, one JSON object a line.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from traitlets.config import Config

from morelib.files import write_json

PREFIX = "morelib-event "  # a kernel may write to the same standard output


def main() -> int:
    """Execute, save the notebook (a partial one on failure) and return 0 or 1."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source, target, parameters = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    logging.getLogger("papermill").setLevel(logging.ERROR)
    total = sum(cell.cell_type == "code" for cell in nbformat.read(source, as_version=4).cells) + 1
    started = iter(range(total))

    # Two kernels that start at once may pick the same free port; sockets in the file system cannot collide.
    connection = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / f"{os.getpid()}.json"
    sockets = {"transport": "ipc", "connection_file": str(connection)}

    def on_cell(**_: Any) -> None:
        report({"cell": next(started, total), "of": total})

    error = None
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=source.parent,
            on_cell_execute=on_cell,
            config=Config({"KernelManager": sockets}),
        )
    except PapermillExecutionError as failure:
        error = {"name": failure.ename, "message": failure.evalue, "cell": failure.source}
    except Exception as failure:  # a kernel that died or never started
        error = {"name": type(failure).__name__, "message": str(failure), "cell": ""}
    report({"error": error, "peak_memory_mb": peak_memory_mb()})
    return 0 if error is None else 1


def report(event: dict[str, Any]) -> None:
    """Send an event to the run-all."""
    print(PREFIX + json.dumps(event), flush=True)


def peak_memory_mb() -> float | None:
    """Largest resident memory, in MB, of a child process that has ended: the kernel."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def kernel_environment(folder: Path, sockets: Path, threads: int) -> dict[str, str]:
    """Variables for kernels of this very interpreter, with `threads` each, that leave the user's home alone.

    `folder` receives the kernel's description; `sockets` must be short, as a socket's path may be 107 characters.
    """
    spec = folder / "kernels" / "python3" / "kernel.json"
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_json(spec, {"argv": command, "display_name": "Python 3", "language": "python"})
    return {
        "OMP_NUM_THREADS": str(threads),
        "JUPYTER_PATH": str(folder),
        "JUPYTER_CONFIG_DIR": str(folder),
        "JUPYTER_RUNTIME_DIR": str(sockets),
        "IPYTHONDIR": str(folder / "ipython"),
    }


if __name__ == "__main__":
    sys.exit(main())

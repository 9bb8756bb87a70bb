"""Run cards: what a result was made with. No number goes into the book without one."""

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from morelib.companion.fingerprint import versions

_SHOWN = ("morelib", "torch", "fastmri", "python")


def make_run_card(
    profile: str,
    root: Path,
    *,
    seeds: Sequence[int],
    data: str,
    wall_s: float | None = None,
    peak_memory_mb: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A JSON-ready record of a run: what was run, on which data, with what, when, at what cost.

    `root` is the repository, for the commit; `more` is added as it is. What was not measured is None.
    """
    return {
        "profile": profile,
        "data": data,
        "seeds": list(seeds),
        "device": device_name(),
        "commit": commit(root),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_s": None if wall_s is None else round(wall_s, 1),
        "peak_memory_mb": None if peak_memory_mb is None else round(peak_memory_mb),
        **more,
    }


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card as the MyST admonition (class `run-card`) that stands at the top of a chapter."""
    lines = [
        ("Device", card["device"]),
        ("Seeds", ", ".join(map(str, card["seeds"]))),
        ("Commit", f"`{card['commit']}`"),
        ("Versions", ", ".join(f"{name} {card['versions'][name]}" for name in _SHOWN)),
    ]
    if card["wall_s"] is not None:
        lines.append(("Time", f"{card['wall_s']:.0f} s"))
    if card["peak_memory_mb"] is not None:
        lines.append(("Peak memory", f"{card['peak_memory_mb']} MB"))
    lines.append(("Run on", card["date"][:10]))
    body = "\n".join(f"* **{name}:** {value}" for name, value in lines)
    title = f"Run card: profile {card['profile']}, {card['data']}"
    return f":::{{admonition}} {title}\n:class: run-card dropdown\n{body}\n:::"


def commit(root: Path) -> str:
    """The checked-out commit of the repository `root`; says so where files differ from it or there is none."""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return "not committed"
    return f"{head} with uncommitted changes" if _git(root, "status", "--porcelain") else head


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def device_name() -> str:
    """The accelerator's name; the processor's where there is none."""
    import torch  # here, because the command line and the notebook runner start without torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()


def processor_name() -> str:
    """The processor's name with the number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"

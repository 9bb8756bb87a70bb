"""What every benchmark gives: rows of ratios. One table prints them, one file keeps them with the machine's card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from rich.table import Table

from morelib.errors import UserError
from morelib.files import write_json

T = TypeVar("T")

UNMEASURED = "unmeasured"
FASTER, TIME, MEMORY, SHARE = "times faster", "of the time", "of the memory", "of the operations"
DIFFERENCE = "relative difference"


@dataclass(frozen=True)
class Row:
    """One line of a benchmark: `what` is `value` `unit` compared with `against`.

    value: None where it could not be measured, as without a GPU. at_least, at_most: the goal, if there is one.
    repeats: rounds behind the medians; 0 for what is counted and not timed. times: the two medians, of what and of
    against, in seconds; they mean something on a GPU only.
    """

    what: str
    against: str
    unit: str
    value: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    repeats: int = 0
    times: tuple[float, float] | None = None

    @property
    def goal(self) -> str:
        """In words, empty without one."""
        if self.at_least is not None:
            return f"at least {self.at_least:.3g}"
        return "" if self.at_most is None else f"at most {self.at_most:.3g}"

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met, None where there is none or nothing was measured."""
        if self.value is None or not self.goal:
            return None
        return self.value >= self.at_least if self.at_least is not None else self.value <= (self.at_most or 0)

    @property
    def cells(self) -> tuple[str, ...]:
        """What, against, value with unit, goal, whether it holds, rounds: for a table."""
        value = UNMEASURED if self.value is None else f"{_short(self.value)} {self.unit}"
        verdict = {None: "", True: "yes", False: "no"}[self.holds]
        return self.what, self.against, value, self.goal, verdict, str(self.repeats or "")


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.1g}"


class Line(Protocol):
    """What a table shows: a `Row`, or a point of a curve."""

    @property
    def cells(self) -> tuple[str, ...]: ...
    @property
    def times(self) -> tuple[float, ...] | None: ...
    @property
    def holds(self) -> bool | None: ...


HEADER = ("what", "against", "measured", "goal", "holds", "rounds")


def compared(
    what: str, against: str, times: tuple[float, float], unit: str, repeats: int, **goal: float
) -> Row:
    """A row from two medians in seconds, of `what` and of `against`; the unit says which is divided by which."""
    ours, theirs = times
    return Row(what, against, unit, theirs / ours if unit == FASTER else ours / theirs,
               repeats=repeats, times=times, **goal)  # fmt: skip


def result_table(title: str, rows: Sequence[Line], caption: str = "", absolute: bool = False) -> Table:
    """For the terminal; `absolute` shows the two times beside each ratio, in milliseconds."""
    table = Table(title=title, caption=caption)
    for name in (*HEADER, *(("ms : ms",) if absolute else ())):
        table.add_column(name, justify="right" if name in ("measured", "rounds", "ms : ms") else "left")
    for row in rows:
        times = " : ".join(f"{1000 * seconds:.1f}" for seconds in row.times or ())
        table.add_row(
            *row.cells, *((times,) if absolute else ()), style=None if row.holds is not False else "red"
        )
    return table


def write_result(
    path: Path, card: Mapping[str, Any], setting: Mapping[str, Any], rows: Sequence[Any]
) -> None:
    """Keep `rows` (dataclasses) with what they were measured on and the run card."""
    write_json(path, {"run_card": card, "setting": setting, "rows": [asdict(row) for row in rows]})


class Recorded(NamedTuple, Generic[T]):
    """A result as it was kept: the run card, what it was measured on, and its rows."""

    card: dict[str, Any]
    setting: dict[str, Any]
    rows: list[T]

    def describe(self) -> str:
        """One line: command, setting, machine, commit."""
        card, size = self.card, "x".join(map(str, self.setting.get("size", ())))
        on = f" at {size} (readout, phase, coils)" if size else ""
        return f"{card['profile']}{on}, {card['data']}. {card['device']}; commit {card['commit']}."


def recorded(root: Path, name: str, kind: type[T]) -> list[Recorded[T]]:
    """What `write_result` left in `root`/book/results/bench as `name`-<machine>.json, by file name.

    `kind` is the class of the rows. Raises UserError for a file that is no such result.
    """
    found = []
    for path in sorted((root / "book" / "results" / "bench").glob(f"{name}-*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = [kind(**row) for row in content["rows"]]
            found.append(Recorded(content["run_card"], content["setting"], rows))
        except (ValueError, KeyError, TypeError) as error:
            remedy = f"make it again with `morelib bench {name} --out`"
            raise UserError(f"{path}: not the result of a benchmark; {remedy}") from error
    return found

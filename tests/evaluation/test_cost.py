"""Operations are counted, times are there; neither depends on the weights."""

from pathlib import Path

import torch

from morelib.data import SliceDataset, collate, find_volumes
from morelib.evaluation import ZeroFilled
from morelib.evaluation.cost import operations, seconds_per_pass
from morelib.nn import build_model

SIZE = {"cascades": 2, "widths": (4, 6), "sens_widths": (4, 6)}


def test_operations_grow_with_cascades_and_experts_that_run(fastmri_files: Path) -> None:
    batch = collate([SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)[0]])
    assert operations(ZeroFilled(), batch) == 0
    one, two, three = (
        operations(build_model("e2e_varnet", **SIZE | {"cascades": n}), batch) for n in (1, 2, 3)
    )
    assert two - one == three - two > 0
    gated = [operations(build_model("more", **SIZE, n_experts=3, top_k=k).eval(), batch) for k in (1, 2, 3)]
    assert gated[1] - gated[0] == gated[2] - gated[1] > 0


def test_times_are_medians_by_name(fastmri_files: Path) -> None:
    batch = collate([SliceDataset(find_volumes(fastmri_files), acceleration=3, center_fraction=0.15)[0]])
    torch.manual_seed(0)
    times = seconds_per_pass(
        {"zero": ZeroFilled(), "net": build_model("e2e_varnet", **SIZE)}, batch, repeats=3
    )
    assert list(times) == ["zero", "net"]
    assert all(value > 0 for value in times.values())

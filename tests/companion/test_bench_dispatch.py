"""The timing of per-pixel dispatch: what it returns. The times themselves are for `morelib bench dispatch`."""

import json

import pytest

from morelib.companion.bench_dispatch import bench_dispatch


@pytest.mark.parametrize("backward", [True, False])
def test_ratios_are_those_of_the_medians(backward: bool) -> None:
    result = bench_dispatch(width=8, n_experts=3, tokens=64, repeats=5, backward=backward, device="cpu")
    assert result["to_one_expert"] == result["dispatch_s"] / result["one_expert_s"]
    assert result["to_all_experts"] == result["dispatch_s"] / result["all_experts_s"]
    assert len(result["load"]) == 3 and sum(result["load"]) == pytest.approx(1)
    assert json.loads(json.dumps(result)) == result


def test_a_median_needs_a_few_rounds() -> None:
    with pytest.raises(ValueError, match="repeats is 4"):
        bench_dispatch(repeats=4)

"""Masks are fastMRI's, tell their net acceleration, and fail in one line."""

import pytest
import torch
from fastmri.data.subsample import create_mask_for_mask_type
from fastmri.data.transforms import apply_mask

from morelib.errors import UserError
from morelib.physics.masks import MASKS, count_acs, make_mask, mask_from_columns, seed_of


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(
    ("width", "padding"), [(368, (18, 350)), (257, (0, 257)), (96, (3, 90)), (65, (0, 65))]
)
def test_same_mask_as_fastmri_from_the_same_seed(kind: str, width: int, padding: tuple[int, int]) -> None:
    theirs = create_mask_for_mask_type(MASKS[kind][0], [0.04], [8])
    data = torch.ones(1, 3, width, 2)
    for seed in [*range(20), seed_of("file1000001.h5"), seed_of("file_brain_AXT2_200_2000019.h5")]:
        _, mask, n_acs = apply_mask(data, theirs, seed=seed, padding=padding)
        ours = make_mask(kind, width, 8, 0.04, seed, padding)
        assert torch.equal(ours.mask, mask.flatten() > 0)
        assert ours.mask.dtype == torch.bool
        assert ours.n_acs == n_acs
        assert ours.acceleration == pytest.approx((padding[1] - padding[0]) / float(mask.sum()))


def test_true_acceleration_tells_the_kinds_apart() -> None:
    def mean(kind: str) -> float:
        masks = [make_mask(kind, 368, 8, 0.04, seed) for seed in range(100)]
        return 100 / sum(1 / mask.acceleration for mask in masks)

    assert mean("equispaced") == pytest.approx(8.0, abs=0.1)
    assert mean("random") == pytest.approx(7.8, abs=0.3)
    assert mean("magic") == pytest.approx(8.3, abs=0.1)
    assert mean("equispaced_plus_acs") == pytest.approx(6.2, abs=0.1)
    assert mean("magic_plus_acs") == pytest.approx(6.2, abs=0.1)


@pytest.mark.parametrize("kind", MASKS)
def test_the_seed_alone_decides(kind: str) -> None:
    masks = [make_mask(kind, 128, 4, 0.08, (1, 2, seed)) for seed in (3, 3, 4, 5, 6, 7, 8, 9)]
    assert torch.equal(masks[0].mask, masks[1].mask)
    assert any(not torch.equal(masks[0].mask, mask.mask) for mask in masks)


@pytest.mark.parametrize("kind", ["equispaced", "magic"])
@pytest.mark.parametrize(("width", "fraction"), [(40, 0.125), (40, 0.32), (8, 0.25)])
def test_a_centre_that_uses_up_all_columns_is_one_line(kind: str, width: int, fraction: float) -> None:
    with pytest.raises(UserError, match="lower center_fraction"):
        make_mask(kind, width, 8, fraction)


def test_random_mask_with_a_large_centre_is_the_centre() -> None:
    mask = make_mask("random", 40, 8, 0.32)
    assert (mask.n_acs, int(mask.mask.sum())) == (13, 13)
    assert mask.acceleration == pytest.approx(40 / 13)


def test_bad_arguments() -> None:
    with pytest.raises(
        UserError, match=r"'equispaced_fraction': unknown; .*equispaced \(fastMRI: equispaced_fraction\)"
    ):
        make_mask("equispaced_fraction", 64)
    with pytest.raises(UserError, match="at least one centre column"):
        make_mask("random", 10, 8, 0.04)
    for acceleration, fraction in ((0.5, 0.1), (float("nan"), 0.1), (4, 1.0), (4, -0.1)):
        with pytest.raises(UserError, match="use acceleration >= 1"):
            make_mask("random", 64, acceleration, fraction)
    with pytest.raises(UserError, match="whole number"):
        make_mask("equispaced_plus_acs", 64, 4.5, 0.1)
    with pytest.raises(UserError, match="padding"):
        make_mask("random", 64, padding=(10, 65))


@pytest.mark.parametrize("width", [32, 33])
def test_count_acs_finds_every_width(width: int) -> None:
    for n_acs in range(1, width + 1):
        mask = torch.zeros(width, dtype=torch.bool)
        start = (width - n_acs + 1) // 2
        mask[start : start + n_acs] = True
        assert count_acs(mask) == n_acs


def test_mask_from_a_file() -> None:
    mask = mask_from_columns(torch.ones(20).numpy(), (2, 18))
    assert (mask.acceleration, mask.n_acs, int(mask.mask.sum())) == (1.0, 16, 16)
    with pytest.raises(UserError, match="no acquired column"):
        mask_from_columns(torch.zeros(20).numpy(), (0, 20))

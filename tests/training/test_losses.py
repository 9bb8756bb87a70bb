"""Our SSIM loss is fastMRI's."""

import pytest
import torch
from fastmri.losses import SSIMLoss

from morelib.training.losses import ssim_loss


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_equals_fastmri(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    target = scale * torch.rand(2, 30, 25, generator=generator, dtype=torch.float64)
    image = target + 0.1 * scale * torch.randn(2, 30, 25, generator=generator, dtype=torch.float64)
    data_range = target.amax((-2, -1))
    # Its window is rounded to float32, hence 1e-7.
    expected = SSIMLoss().double()(image[:, None], target[:, None], data_range)
    assert ssim_loss(image, target, data_range).item() == pytest.approx(expected.item(), abs=1e-7)
    in_float32 = ssim_loss(image.float(), target.float(), data_range.float())
    assert in_float32.item() == pytest.approx(expected.item(), abs=1e-5)


def test_zero_for_equal_images_of_different_size() -> None:
    image = torch.rand(1, 40, 30)
    assert ssim_loss(image, image[:, 5:-5, 5:-5], image.amax((-2, -1))).item() == pytest.approx(0, abs=1e-5)


def test_an_empty_volume_is_no_nan() -> None:
    zeros = torch.zeros(1, 20, 20)
    assert torch.isfinite(ssim_loss(zeros, zeros, torch.zeros(1)))

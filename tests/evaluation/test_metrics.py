"""The numbers are fastMRI's."""

import numpy as np
import pytest
from fastmri import evaluate as theirs

from morelib.evaluation.metrics import nmse, psnr, ssim


def pair(dtype: type, shape: tuple[int, ...] = (3, 31, 40), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 1e-3, shape)
    return target.astype(dtype), (target + rng.normal(0, 1e-4, shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_fastmri(dtype: type, seed: int) -> None:
    target, prediction = pair(dtype, seed=seed)
    target[0] = 0  # an empty slice in a volume is usual
    assert psnr(target, prediction) == pytest.approx(float(theirs.psnr(target, prediction)), abs=1e-6)
    assert ssim(target, prediction) == pytest.approx(float(theirs.ssim(target, prediction)[0]), abs=1e-6)
    assert nmse(target, prediction) == pytest.approx(float(theirs.nmse(target, prediction)), abs=1e-6)
    assert ssim(target, prediction, 2e-3) == pytest.approx(
        float(theirs.ssim(target, prediction, 2e-3)[0]), abs=1e-6
    )
    assert psnr(target, prediction, 2e-3) == pytest.approx(
        float(theirs.psnr(target, prediction, 2e-3)), abs=1e-6
    )


def test_equal_volumes() -> None:
    target, _ = pair(np.float32)
    assert (psnr(target, target), nmse(target, target)) == (np.inf, 0)
    assert ssim(target, target) == pytest.approx(1)


@pytest.mark.parametrize("metric", [psnr, ssim, nmse])
def test_undefined_cases_raise(metric: object) -> None:
    assert callable(metric)
    target, prediction = pair(np.float32)
    with pytest.raises(ValueError, match="zero everywhere"):
        metric(np.zeros_like(target), prediction)
    with pytest.raises(ValueError, match="one shape"):
        metric(target, prediction[:, :-1])
    with pytest.raises(ValueError, match="one shape"):
        metric(target[0], prediction[0])

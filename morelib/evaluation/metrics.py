"""Image quality per volume, as `fastmri.evaluate` computes it.

All take numpy volumes (slices, h, w) of equal shapes, target first, and keep their float type: the same
formula in another precision differs in the fifth digit. The data range is the maximum of the target volume
unless given.
"""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Volume = np.ndarray


def nmse(target: Volume, prediction: Volume) -> float:
    """Squared error over squared target. Raises ValueError for an all-zero target."""
    _check(target, prediction)
    return float(np.linalg.norm(target - prediction) ** 2 / np.linalg.norm(target) ** 2)


def psnr(target: Volume, prediction: Volume, maxval: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal volumes. Raises ValueError for an all-zero target."""
    _check(target, prediction)
    if np.array_equal(target, prediction):
        return float("inf")
    return float(
        peak_signal_noise_ratio(target, prediction, data_range=target.max() if maxval is None else maxval)
    )


def ssim(target: Volume, prediction: Volume, maxval: float | None = None) -> float:
    """Structural similarity (1 is equal), mean over slices; uniform 7x7 window. Raises ValueError as above."""
    _check(target, prediction)
    data_range = target.max() if maxval is None else maxval
    slices = zip(target, prediction, strict=True)
    return float(np.mean([structural_similarity(one, other, data_range=data_range) for one, other in slices]))


def _check(target: Volume, prediction: Volume) -> None:
    if target.ndim != 3 or target.shape != prediction.shape:
        raise ValueError(
            f"expected two volumes (slices, h, w) of one shape, got {target.shape}, {prediction.shape}"
        )
    if not target.any():
        raise ValueError("the target volume is zero everywhere, so no metric is defined")

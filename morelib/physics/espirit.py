"""ESPIRiT: coil maps from the fully sampled centre of k-space, as eigenvectors (Uecker, MRM 71 (2014) 990).

Every patch of k-space, all coils together, lies in a small subspace, because the coils see the same object. A patch
that is projected onto that subspace does not change. Averaged over all the places a patch can have, the projection
is a convolution of k-space with small filters from coil to coil: in the image a Hermitian matrix of coil by coil at
each pixel, whose eigenvector with eigenvalue one is the vector of sensitivities there.
"""

import torch
from torch import Tensor

# Pixels times coils squared whose matrices are in memory together: 2^20 complex64 are 8 MiB, about a cache.
_CHUNK = 2**20
# The matrix is raised to the power 2^5 = 32; BART's orthogonal iteration takes 30 steps.
_SQUARINGS = 5


def espirit_maps(
    kspace: Tensor,
    n_acs: int | Tensor,
    *,
    rows: int = 24,
    kernel: int = 6,
    threshold: float = 1e-3,
    crop: float = 0.8,
) -> Tensor:
    """The first set of ESPIRiT maps; the defaults are those of BART's `ecalib -m1`.

    Args:
        kspace: complex (batch, coil, y, x), centred; only its centre is looked at.
        n_acs: central columns that are sampled, one number or (batch,).
        rows: the calibration region is these central rows of the ACS columns, or all there are.
        kernel: side of a patch; less where the calibration region is narrower than 2 kernel - 1: a patch must find
            as many places along each axis as it has samples, or nothing is left to learn from (BART's maps
            are then all but empty). So six ACS columns get patches three wide.
        threshold: of the energy: singular vectors span the subspace where s > sqrt(threshold) s_max.
        crop: where the eigenvalue is not above, no coil is taken to see the object and the maps are zero.

    Returns:
        Maps shaped like kspace, root sum of squares one, or zero outside the object, in an unseen slice and for a
        dead coil. Their phase is free; it is set so that the virtual coil that takes up most energy (the first
        principal component of the calibration data) is real and positive at every pixel.
    """
    counts = torch.as_tensor(n_acs).expand(len(kspace)).tolist()
    return torch.stack(
        [_maps(one, n, rows, kernel, threshold, crop) for one, n in zip(kspace, counts, strict=True)]
    )


def _maps(kspace: Tensor, n_acs: int, rows: int, kernel: int, threshold: float, crop: float) -> Tensor:
    """`espirit_maps` of one k-space (coil, y, x)."""
    coils, height, width = kspace.shape
    region = _centre(_centre(kspace, rows, -2), n_acs, -1)
    peak = region.abs().amax()
    region = region / torch.where(peak > 0, peak, 1)  # squares of tiny numbers would vanish
    filters = _filters(region, kernel, threshold)
    virtual = _principal_coil(region)
    to_y, to_x = (
        _fourier(n, size, kspace) for n, size in ((height, filters.shape[0]), (width, filters.shape[1]))
    )
    maps = torch.empty(height, width, coils, dtype=kspace.dtype, device=kspace.device)
    step = max(1, _CHUNK // (width * coils**2))
    for first in range(0, height, step):
        # Two small matrix products instead of zero-filled FFTs of coils^2 images.
        matrices = torch.einsum("ya,abcd->ybcd", to_y[first : first + step], filters)
        matrices = torch.einsum("xb,ybcd->yxcd", to_x, matrices)
        vector, value = _first_eigenvector(matrices)
        phase = torch.sgn(vector @ virtual.conj())
        maps[first : first + step] = torch.where(value > crop, vector * phase.conj()[..., None], 0)
    return maps.permute(2, 0, 1)


def _centre(x: Tensor, size: int, dim: int) -> Tensor:
    """The central `size` of axis `dim`, placed as fastMRI places the ACS columns."""
    size = min(size, x.shape[dim])
    return x.narrow(dim, (x.shape[dim] - size + 1) // 2, size)


def _filters(region: Tensor, kernel: int, threshold: float) -> Tensor:
    """The averaged projection as filters (2 ky - 1, 2 kx - 1, coil, coil), from the calibration region."""
    ky, kx = (min(kernel, (n + 1) // 2) for n in region.shape[-2:])
    patches = region.unfold(-2, ky, 1).unfold(-2, kx, 1)  # (coil, places y, places x, ky, kx)
    matrix = patches.permute(1, 2, 0, 3, 4).reshape(-1, len(region) * ky * kx)
    _, s, basis = torch.linalg.svd(matrix, full_matrices=False)
    basis = torch.where(s > threshold**0.5 * s[0], basis.T, 0).T.unflatten(-1, (len(region), ky, kx))
    # Correlations of the basis patches, by FFTs large enough not to wrap around.
    sizes = 2 * ky - 1, 2 * kx - 1
    spectra = torch.fft.ifft2(basis, s=sizes, norm="forward")
    power = torch.einsum("ncab,ndab->abcd", spectra, spectra.conj()) / (ky * kx)
    return torch.fft.fftshift(torch.fft.fft2(power, dim=(0, 1), norm="forward"), (0, 1))


def _fourier(n: int, size: int, like: Tensor) -> Tensor:
    """Inverse Fourier transform, not normalised, from the `size` (odd) lowest frequencies to `n` pixels."""
    pixel = torch.arange(n, dtype=torch.float64) - n // 2
    frequency = torch.arange(size, dtype=torch.float64) - size // 2
    turns = pixel[:, None] * frequency / n
    return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(like)


def _first_eigenvector(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Unit eigenvector (..., coil) and largest eigenvalue (..., 1) of Hermitian matrices (..., coil, coil) >= 0.

    By squaring, so that on small matrices it is several times as fast as a full decomposition; zero for zero.
    """
    power = matrices
    for _ in range(_SQUARINGS):
        trace = power.diagonal(dim1=-2, dim2=-1).real.sum(-1)[..., None, None]
        power = power / torch.where(trace > 0, trace, 1)
        power = power @ power
    # Every column is a multiple of the eigenvector; the largest is the most exact.
    best = power.diagonal(dim1=-2, dim2=-1).real.argmax(-1)[..., None, None].expand(*power.shape[:-1], 1)
    vector = power.gather(-1, best)
    norm = torch.linalg.vector_norm(vector, dim=-2, keepdim=True)
    vector = vector / torch.where(norm > 0, norm, 1)
    value = torch.linalg.vector_norm(matrices @ vector, dim=-2)
    return vector[..., 0], value


def _principal_coil(region: Tensor) -> Tensor:
    """First principal component (coil,) of the calibration data; its largest entry is real and positive."""
    data = region.flatten(1)
    vector = torch.linalg.eigh(data @ data.mH)[1][:, -1]
    return vector * torch.sgn(vector[vector.abs().argmax()]).conj()

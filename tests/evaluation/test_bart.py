"""ESPIRiT and SENSE agree with BART on the same k-space, where BART is installed (Debian package `bart`)."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from morelib.data.index import find_volumes
from morelib.data.phantom import make_phantom
from morelib.data.readers import read_slice
from morelib.evaluation.classical.solvers import cg_sense, tv_sense
from morelib.physics.espirit import espirit_maps
from morelib.physics.hybrid import HybridSense, coil_images
from morelib.physics.sense import rss

pytestmark = pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")

N_ACS = 12


@pytest.fixture(scope="module")
def kspace(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """A phantom brain slice (1, 4 coils, 96, 48), scaled to a peak of about one."""
    folder = tmp_path_factory.mktemp("phantom")
    make_phantom(folder, volumes_per_category=1, size=48, coils=4, slices=1)
    full, target = read_slice(find_volumes(folder)[0], 0)
    assert target is not None
    return full[None] / target.max()


@pytest.fixture(scope="module")
def problem(kspace: Tensor) -> tuple[Tensor, Tensor, HybridSense, Tensor]:
    """Every third column beside the ACS: k-space, maps, SENSE in double precision, and A^H y."""
    mask = torch.zeros(1, 1, 1, 48, dtype=torch.bool)
    mask[..., ::3] = True
    mask[..., 18:30] = True
    mask &= kspace.abs().sum((0, 1, 2)) > 0  # BART takes what is zero for not sampled
    sampled, maps = kspace * mask, espirit_maps(kspace, N_ACS)
    sense = HybridSense(maps.to(torch.complex128), mask)
    return sampled, maps, sense, sense.combine(coil_images(sampled.to(torch.complex128)))


def bart(folder: Path, command: str, *inputs: Tensor) -> Tensor:
    """Run `bart command` on coil data (1, coil, y, x); gives (1, coil or 1, y, x)."""
    names = []
    for number, data in enumerate(inputs):
        names.append(str(folder / f"input{number}"))
        array = data[0].permute(1, 2, 0).numpy()[:, :, None]  # BART: (y, x, 1, coil), first axis fastest
        Path(names[-1] + ".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
        array.astype(np.complex64).ravel(order="F").tofile(names[-1] + ".cfl")
    output = folder / "output"
    subprocess.run(
        ["bart", *command.split(), *names, str(output)],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    shape = [int(n) for n in output.with_suffix(".hdr").read_text().splitlines()[1].split()][:4]
    data = np.fromfile(output.with_suffix(".cfl"), np.complex64).reshape(shape, order="F")
    return torch.from_numpy(np.ascontiguousarray(data[:, :, 0].transpose(2, 0, 1)))[None]


def test_maps_are_those_of_ecalib(kspace: Tensor, tmp_path: Path) -> None:
    # BART looks for its calibration region by itself: leave it only ours.
    centre = torch.zeros_like(kspace)
    centre[..., 36:60, 18:30] = kspace[..., 36:60, 18:30]
    ours, theirs = espirit_maps(centre, N_ACS), bart(tmp_path, "ecalib -m1", centre)
    seen, seen_by_bart = rss(ours) > 0, rss(theirs) > 0
    assert (seen != seen_by_bart).float().mean() < 1e-3
    agreement = (ours.conj() * theirs).sum(1)[seen & seen_by_bart]
    assert agreement.abs().quantile(0.01) > 1 - 1e-4
    # Even their phases are the same, up to one for the whole slice.
    assert (agreement * agreement.mean().conj()).angle().abs().quantile(0.99) < 1e-3


@pytest.mark.parametrize("weight", [0.01, 0.1])
def test_cg_sense_is_pics_l2(
    weight: float, problem: tuple[Tensor, Tensor, HybridSense, Tensor], tmp_path: Path
) -> None:
    sampled, maps, sense, zero_filled = problem
    ours = cg_sense(sense, zero_filled, weight, 200)
    theirs = bart(tmp_path, f"pics -l2 -r {weight} -i 200 -w 1 -S", sampled, maps)[:, 0]
    assert (ours - theirs).norm() < 1e-4 * ours.norm()


def test_tv_sense_is_pics_with_total_variation(
    problem: tuple[Tensor, Tensor, HybridSense, Tensor], tmp_path: Path
) -> None:
    sampled, maps, sense, zero_filled = problem
    ours = tv_sense(sense, zero_filled, 0.01, 200)
    theirs = bart(tmp_path, "pics -R T:3:0:0.01 -m -u 0.1 -C 10 -i 500 -w 1 -S", sampled, maps)[:, 0]
    assert (ours - theirs).norm() < 5e-3 * ours.norm()

"""Derive the phantom's shipped assets from the public anatomy: run once, by hand; the results are committed.

    python data_manifests/derive_anatomy.py colin27_t1_1mm.nii.gz knee_labels.nrrd fastmri_volumes.csv \
        morelib/data/phantom/assets

Needs the extras of `pip install -e .[dev]` (nibabel, pynrrd). Writes
  brain.npz      region (x, y, z): uint8 labels of `anatomy.Region`; level: uint8, the tissue coordinate in
                 steps of 1/LEVELS, inside BRAIN 0 = CSF, 1 = grey, 2 = white matter, in SCALP part of fat.
  knee.npz       labels (front to back, top to bottom, side to side), uint8, 0.73 x 0.73 x 0.7 mm.
  protocols.csv  every distinct protocol of the fastMRI volume table, with scanner, coils and matrix, and how many
                 volumes have it.
"""

import argparse
import csv
from collections import Counter
from dataclasses import fields
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from morelib.data.phantom.anatomy import BOTTOM, LEVELS, Region
from morelib.data.phantom.protocol import Protocol

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]

# Colin27 intensities, read off its histogram.
AIR, CSF, GREY, WHITE, FAT = 14, 35, 82, 113, 190


def dilate(mask: Mask, radius: float) -> Mask:
    """Euclidean dilation by `radius` voxels."""
    return ndi.distance_transform_edt(~mask) <= radius


def erode(mask: Mask, radius: float) -> Mask:
    """Euclidean erosion by `radius` voxels."""
    return ndi.distance_transform_edt(mask) > radius


def largest(mask: Mask) -> Mask:
    """The largest connected component."""
    components, n = ndi.label(mask)
    return components == 1 + np.argmax(ndi.sum_labels(mask, components, range(1, n + 1)))


def remove_small(mask: Mask, voxels: int) -> Mask:
    """Drop connected components of fewer than `voxels`."""
    components, n = ndi.label(mask)
    sizes = np.concatenate([[0], ndi.sum_labels(mask, components, range(1, n + 1))])
    return sizes[components] >= voxels


def smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Volume:
    """Gaussian-smoothed white noise of unit standard deviation."""
    field = ndi.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return (field / field.std()).astype(np.float32)


def midplane(image: Volume, inside: Mask) -> NDArray[np.float64]:
    """x of the interhemispheric fissure for every (y, z): the darkest column near the middle, smoothed."""
    x0, x1 = 82, 99
    dark = ndi.gaussian_filter(np.where(inside, image, WHITE), (1, 3, 3))[x0:x1]
    return ndi.gaussian_filter(ndi.median_filter((x0 + dark.argmin(0)).astype(float), 15), 5)


def derive_brain(image: Volume) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Label Colin27 and return (region, level)."""
    rng = np.random.default_rng(27)
    tissue = (image > 62) & (image < 132)
    # Eroding breaks the bridges from brain to scalp; growing back stays inside brain-like intensities.
    brain = largest(dilate(largest(erode(tissue, 2.5)), 3.5) & tissue)
    # Closing over the sulci gives the space inside the dura.
    inside = ndi.binary_fill_holes(erode(dilate(brain, 10), 10))
    to_inside = ndi.distance_transform_edt(~inside)
    depth = ndi.distance_transform_edt(inside)
    # Padded, so that the ears and the nose, cut off by the edge of the image, open away.
    head = ndi.binary_fill_holes(largest(erode(dilate(np.pad(image > AIR, 10), 4), 4)))
    head = (dilate(erode(head, 9), 9) & head)[10:-10, 10:-10, 10:-10]
    # Slices cut the neck and the crown open, so fill each plane as well.
    head = np.stack([ndi.binary_fill_holes(head[:, :, z]) for z in range(head.shape[2])], axis=2)

    # White matter brightness varies by a few per cent over the head: normalise by its local mean.
    white = erode(brain, 3) & (image > 104)
    weight = ndi.gaussian_filter(white.astype(np.float32), 15) + 1e-4
    local = ndi.gaussian_filter(np.where(white, image, 0), 15) / weight
    gain = np.where(local > 90, WHITE / np.clip(local, 90, 130), 1)
    level = np.interp(image * gain, [CSF, GREY, WHITE], [0, 1, 2])

    region = np.zeros(image.shape, np.uint8)
    region[head] = Region.SCALP
    fat_fraction = np.clip((image - 16) / (FAT - 16), 0, 1)
    depth_in_head = ndi.distance_transform_edt(head)
    mid_grey = (image > 52) & (image < 108) & head & (to_inside > 4) & (depth_in_head > 4)
    muscle = dilate(erode(mid_grey, 2.2), 2.8) & mid_grey
    muscle = remove_small(muscle, 2000)
    region[muscle] = Region.MUSCLE
    region[head & (depth_in_head <= 1.5)] = Region.SKIN
    # A rim of cerebrospinal fluid and then dura lie between the brain's hull and the skull.
    rim = 0.9 + 0.7 * smooth_noise(image.shape, 10, rng)
    region[(to_inside > 0) & (to_inside <= rim + 1)] = Region.DURA
    region[(to_inside > 0) & (to_inside <= rim)] = Region.BRAIN
    region[inside] = Region.BRAIN
    level = np.where(inside, level, 0)

    fluid = inside & ~brain & (level < 0.75)
    x = np.arange(image.shape[0])[:, None, None]
    from_mid = np.abs(x - midplane(image, inside)[None])
    falx = fluid & (from_mid < 0.7) & (depth < 38) & (np.arange(image.shape[2]) > 62)
    region[falx] = Region.DURA
    # The sagittal sinus: where the midplane meets the hull, behind and above.
    shell = dilate(inside, 3) & ~erode(inside, 4) & ~brain
    sinus = shell & (from_mid < 3.5) & (np.arange(image.shape[2]) > 55)
    region[sinus] = Region.VESSEL
    # Vessels in the sulci: the curves on which two smooth random fields both vanish.
    a, b = (smooth_noise(image.shape, 4, rng) for _ in range(2))
    region[fluid & (depth < 30) & (a**2 + b**2 < 0.06)] = Region.VESSEL
    # Choroid plexus: shreds inside the hind part of the ventricles.
    ventricle = largest(erode(fluid & (depth > 25) & (from_mid < 45), 0.5))
    hind = ventricle & (from_mid > 3) & (np.arange(image.shape[1])[:, None] < 108)
    region[hind & (smooth_noise(image.shape, 2.5, rng) > 0.7)] = Region.CHOROID

    # Fat needs no fine steps; the head below the orbits is never sliced.
    fat_fraction = np.rint(fat_fraction * LEVELS / 2) * 2 / LEVELS
    level = np.where(region == Region.SCALP, fat_fraction, np.where(region == Region.BRAIN, level, 0))
    steps = np.rint(np.clip(level, 0, 2) * LEVELS).astype(np.uint8)
    return region[:, :, BOTTOM:], steps[:, :, BOTTOM:]


def decimate_knee(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve the in-plane resolution by majority vote, so that voxels become nearly isotropic."""
    votes = [
        (labels == k).reshape(192, 2, 192, 2, -1).sum((1, 3), dtype=np.uint8) + (0 if k else 0.5)
        for k in range(int(labels.max()) + 1)
    ]
    return np.argmax(votes, axis=0).astype(np.uint8)


def write_protocols(table: Path, out: Path) -> None:
    """Count the distinct protocols, scanners, coils and matrices together, of the volume table."""
    names = [field.name for field in fields(Protocol)]
    with table.open(newline="") as file:
        counts = Counter(tuple(row[name] for name in names) for row in csv.DictReader(file))
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "count"])
        writer.writerows([*protocol, n] for protocol, n in sorted(counts.items()))


def main() -> None:
    """Derive all three assets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("colin27", "knee", "table", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    image = np.asarray(nib.Nifti1Image.from_filename(arguments.colin27).dataobj).astype(np.float32)
    region, level = derive_brain(image)
    np.savez_compressed(arguments.out / "brain.npz", region=region, level=level)
    np.savez_compressed(arguments.out / "knee.npz", labels=decimate_knee(nrrd.read(str(arguments.knee))[0]))
    write_protocols(arguments.table, arguments.out / "protocols.csv")


if __name__ == "__main__":
    main()

"""Writers of tiny files, true to the layout of every data set that can be read. All their content is synthetic."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import nibabel
import numpy as np

from tests.data.fixtures_raw import write_raw_file
from tests.data.synthetic import coil_images, fft2c, noisy_kspace

HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <acquisitionSystemInformation>
    <systemFieldStrength_T>{tesla}</systemFieldStrength_T>
  </acquisitionSystemInformation>
  <encoding>
    <encodedSpace><matrixSize><x>{readout}</x><y>{phase}</y><z>1</z></matrixSize></encodedSpace>
    <reconSpace><matrixSize><x>{size}</x><y>{size}</y><z>1</z></matrixSize></reconSpace>
    <encodingLimits><kspace_encoding_step_1>
      <minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
    </kspace_encoding_step_1></encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>"""


def write_fastmri_file(
    path: Path,
    acquisition: str,
    patient: str,
    *,
    slices: int = 2,
    coils: int = 2,
    phase: int = 32,
    size: int = 24,
    empty_columns: int = 2,
    seed: int = 0,
    oversampling: int = 2,
    tesla: float = 2.89,
) -> Path:
    """A fastMRI file: the readout longer than the image; `empty_columns` on each side were never acquired."""
    readout = oversampling * size
    kspace = noisy_kspace(slices, coils, readout, phase, seed)
    kspace[..., :empty_columns] = 0
    kspace[..., phase - empty_columns :] = 0
    rss = np.sqrt((np.abs(fft2c(kspace.conj())) ** 2).sum(1))
    top, left = (readout - size) // 2, (phase - size) // 2
    rss = rss[:, top : top + size, left : left + size].astype(np.float32)
    header = HEADER.format(
        tesla=tesla,
        readout=readout,
        phase=phase,
        size=size,
        maximum=phase - 2 * empty_columns - 1,
        center=phase // 2 - empty_columns,
    )
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace.astype(np.complex64)
        file["reconstruction_rss"] = rss
        file["ismrmrd_header"] = header.encode()
        file.attrs.update(
            acquisition=acquisition,
            patient_id=patient,
            max=float(rss.max()),
            norm=float(np.linalg.norm(rss)),
            synthetic=True,
        )
    return path


def write_m4raw_file(
    folder: Path, subject: str = "2022061203", contrast: str = "T1", repetition: int = 1, seed: int = 0
) -> Path:
    """An M4Raw file: 4 coils, 0.3 T, square k-space, every column acquired."""
    path = folder / f"{subject}_{contrast}{repetition:02d}.h5"
    shape = {"coils": 4, "phase": 32, "size": 32, "empty_columns": 0, "oversampling": 1}
    write_fastmri_file(path, contrast, subject, **shape, seed=seed, tesla=0.3)
    with h5py.File(path, "a") as file:
        del file.attrs["synthetic"], file.attrs["norm"]
    return path


def write_cc359_file(
    path: Path,
    *,
    depth: int = 10,
    coils: int = 3,
    readout: int = 36,
    phase: int = 30,
    zero_first: bool = False,
    seed: int = 0,
) -> Path:
    """A CC359 file (depth, readout, phase, 2 coils) with the zero frequency at n // 2, or at 0 (`zero_first`)."""
    images = coil_images(depth, coils, readout, phase, seed)
    rng = np.random.default_rng(seed)
    images = images + 1e-6 * (rng.standard_normal(images.shape) + 1j * rng.standard_normal(images.shape))
    kspace = np.fft.fftshift(np.fft.fft2(images, norm="ortho"), (-2, -1))
    kspace[..., int(np.ceil(0.85 * phase)) :] = 0
    if zero_first:
        kspace = np.fft.ifftshift(kspace, (-2, -1))
    kspace = kspace.transpose(0, 2, 3, 1)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([kspace.real, kspace.imag], -1).reshape(*kspace.shape[:3], -1).astype("f4")
    return path


def write_nifti(path: Path, shape: Sequence[int], *, seed: int = 0, affine: np.ndarray | None = None) -> Path:
    """A magnitude image of whole numbers, an ellipsoid off the middle, so that turning it shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    plane = 900 * np.exp(-3 * (x - 0.2) ** 2 - 6 * (y - 0.3) ** 2)
    rng = np.random.default_rng(seed)
    voxels = plane.reshape(*shape[:2], *[1] * (len(shape) - 2)) * rng.uniform(0.6, 1, shape)
    image = nibabel.Nifti1Image(
        voxels.astype(np.int16), np.diag([-1.5, -1.5, 8, 1]) if affine is None else affine
    )
    nibabel.save(image, path)
    return path


def write_acdc_tree(folder: Path, patients: Sequence[int] = (1, 2), testing: Sequence[int] = (101,)) -> Path:
    """ACDC as it is unpacked: per patient Info.cfg, the cine, its two annotated frames and their labels."""
    for part, numbers in (("training", patients), ("testing", testing)):
        for number in numbers:
            name = f"patient{number:03d}"
            place = folder / part / name
            place.mkdir(parents=True)
            (place / "Info.cfg").write_text(
                "ED: 1\nES: 3\nGroup: NOR\nHeight: 180.0\nNbFrame: 4\nWeight: 75.0\n"
            )
            write_nifti(place / f"{name}_4d.nii.gz", (40, 44, 3, 4), seed=number)
            for frame in ("01", "03"):
                write_nifti(place / f"{name}_frame{frame}.nii.gz", (40, 44, 3), seed=number + int(frame))
                write_nifti(place / f"{name}_frame{frame}_gt.nii.gz", (40, 44, 3))
    return folder


def write_prostate158_tree(folder: Path, train: Sequence[int] = (20, 22), test: Sequence[int] = (1,)) -> Path:
    """Prostate158 as it is unpacked: per patient T2, ADC, DWI, labels; tables of training and validation."""
    for part, numbers in (("prostate158_train/train", train), ("prostate158_test/test", test)):
        for number in numbers:
            place = folder / part / f"{number:03d}"
            for name in (
                "t2",
                "adc",
                "dwi",
                "t2_anatomy_reader1",
                "adc_tumor_reader1",
                "t2_tumor_reader1",
                "empty",
            ):
                write_nifti(place / f"{name}.nii.gz", (40, 40, 3), seed=number)
    rows = [f"{number},train/{number:03d}/t2.nii.gz,train/{number:03d}/adc.nii.gz" for number in train]
    (folder / "prostate158_train/train.csv").write_text("\n".join(["ID,t2,adc", *rows[:-1], ""]))
    (folder / "prostate158_train/valid.csv").write_text("\n".join(["ID,t2,adc", rows[-1], ""]))
    return folder


def _cc359_folder(folder: Path) -> Path:
    for part, numbers in (("Train", (1, 2)), ("Val", (3,))):
        (folder / part).mkdir(parents=True)
        for number in numbers:
            write_cc359_file(folder / part / f"e1410{number}s3_P21504.7.h5", seed=number)
    return folder


def _m4raw_folder(folder: Path) -> Path:
    for number, subject in enumerate(("2022061203", "2022061204", "2022061205")):
        for contrast in ("T1", "T2", "FLAIR"):
            write_m4raw_file(folder, subject, contrast, seed=number)
    return folder


def _fastmri_folder(folder: Path) -> Path:
    for number, patient in enumerate(("anna", "ben", "carl")):
        write_fastmri_file(folder / f"file_brain_AXT2_{number}.h5", "AXT2", patient, seed=number)
    return folder


def _raw_folder(folder: Path) -> Path:
    for number in range(3):
        write_raw_file(
            folder / f"scan{number}.h5",
            noisy_kspace(2, 2, 48, 32, seed=number),
            header=lambda text, number=number: text.replace("p-17", f"p-{number}"),
        )
    return folder


# Every data set: a function that fills an existing empty folder with volumes of at least three patients.
DATASETS: dict[str, Callable[[Path], Path]] = {
    "fastmri": _fastmri_folder,
    "m4raw": _m4raw_folder,
    "cc359": _cc359_folder,
    "acdc": write_acdc_tree,
    "prostate158": write_prostate158_tree,
    "ismrmrd": _raw_folder,
}

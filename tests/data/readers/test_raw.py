"""ISMRMRD raw acquisitions: every readout in its place, and what is not read."""

from collections.abc import Callable
from pathlib import Path

import ismrmrd
import numpy as np
import pytest
import torch

from morelib.data.dataset import SliceDataset
from morelib.data.readers import read_info, read_mask, read_slice
from morelib.data.volume import MEASURED
from morelib.errors import UserError
from tests.data.fixtures_raw import replace, two_encodings, write_raw_file
from tests.data.synthetic import coil_images, noisy_kspace

Acquisition = ismrmrd.Acquisition


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan.h5"


def assert_reads(path: Path, expected: np.ndarray, lines: range | list[int] = range(2, 30)) -> None:
    """The file's slices are `expected` (slice, coil, y, x) in the columns `lines`, and zero elsewhere."""
    info = read_info(path)
    assert info.n_slices == len(expected)
    wanted = np.zeros_like(expected)
    wanted[..., lines] = expected[..., lines]
    for index in range(info.n_slices):
        np.testing.assert_allclose(
            read_slice(info, index)[0], wanted[index], rtol=0, atol=1e-5 * np.abs(expected).max()
        )


def test_header_facts(path: Path) -> None:
    info = read_info(write_raw_file(path))
    assert (info.acquisition, info.anatomy, info.origin) == ("Knee PD TSE", "knee", MEASURED)
    assert (info.field_t, info.scanner, info.max) == (2.9, "Model 3", None)
    assert (info.n_slices, info.n_coils, info.readout, info.phase, info.recon) == (2, 2, 48, 32, (24, 30))
    assert info.padding == (2, 30) and not info.undersampled
    assert "p-17" not in info.patient
    other = write_raw_file(path.with_name("same.h5"), header=replace("<patientID>p-17</patientID>", ""))
    assert read_info(other).patient == "same"


def test_lines_go_where_the_header_says_and_the_noise_scan_goes_nowhere(path: Path) -> None:
    assert_reads(write_raw_file(path), noisy_kspace(2, 2, 48, 32))


def test_as_the_package_reads_it(path: Path) -> None:
    write_raw_file(path)
    kspace = read_slice(read_info(path), 1)[0]
    with ismrmrd.Dataset(str(path), "dataset", mode="r") as dataset:
        for number in range(dataset.number_of_acquisitions()):
            acquisition = dataset.read_acquisition(number)
            if acquisition.idx.slice == 1 and not acquisition.isFlagSet(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
                column = acquisition.idx.kspace_encode_step_1 + 2
                np.testing.assert_array_equal(kspace[:, :, column], acquisition.data)


def test_averages_are_averaged(path: Path) -> None:
    def edit(line: Acquisition) -> None:
        line.data[:] += 1e-4 * (1 - 2 * line.idx.average)

    assert_reads(write_raw_file(path, averages=2, edit=edit), noisy_kspace(2, 2, 48, 32))


@pytest.mark.parametrize("counter", ["repetition", "contrast", "set", "phase"])
def test_the_first_of_several_images_is_read(counter: str, path: Path) -> None:
    def edit(line: Acquisition) -> None:
        setattr(line.idx, counter, 3 + line.idx.average)
        line.data[:] *= 1 + 5 * line.idx.average

    assert_reads(write_raw_file(path, averages=2, edit=edit), noisy_kspace(2, 2, 48, 32))


@pytest.mark.parametrize(
    "flag",
    ["NAVIGATION_DATA", "PHASECORR_DATA", "RTFEEDBACK_DATA", "HPFEEDBACK_DATA", "DUMMYSCAN_DATA",
     "SURFACECOILCORRECTIONSCAN_DATA", "PARALLEL_CALIBRATION"],
)  # fmt: skip
def test_readouts_that_are_no_image_lines_are_skipped(flag: str, path: Path) -> None:
    def edit(line: Acquisition) -> Acquisition | None:
        if line.idx.average == 0:
            return None
        line.setFlag(getattr(ismrmrd, f"ACQ_IS_{flag}"))
        line.data[:] = 1
        return line

    assert_reads(write_raw_file(path, averages=2, edit=edit), noisy_kspace(2, 2, 48, 32))


def test_calibration_lines_that_are_image_lines_are_kept(path: Path) -> None:
    def both(line: Acquisition) -> None:
        line.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        line.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)

    assert_reads(write_raw_file(path, edit=both), noisy_kspace(2, 2, 48, 32))

    def calibration(line: Acquisition) -> None:
        if 10 <= line.idx.kspace_encode_step_1 < 18 and line.idx.kspace_encode_step_1 % 2:
            line.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)

    lines = sorted({*range(2, 30, 2), *range(12, 20)})
    separate = write_raw_file(path.with_name("b.h5"), lines=lines, edit=calibration)
    assert read_mask(read_info(separate)).n_acs == 1
    mode = "<parallelImaging><calibrationMode>embedded</calibrationMode></parallelImaging></encoding>"
    embedded = write_raw_file(
        path.with_name("c.h5"), lines=lines, edit=calibration, header=replace("</encoding>", mode)
    )
    assert read_mask(read_info(embedded)).n_acs == 9  # columns 12 to 20


def test_undersampled_files_bring_their_mask_and_no_target(path: Path) -> None:
    lines = sorted({*range(2, 30, 3), *range(14, 19)})
    write_raw_file(path, lines=lines)
    info = read_info(path)
    assert info.undersampled and not info.has_target and read_slice(info, 0)[1] is None
    mask = read_mask(info)
    assert mask.mask.nonzero().flatten().tolist() == lines
    assert info.padding == (2, 30) and mask.acceleration == pytest.approx(28 / len(lines))
    assert_reads(path, noisy_kspace(2, 2, 48, 32), lines)
    assert torch.equal(SliceDataset([info])[1].mask[0, 0], mask.mask)


def test_the_mask_holds_the_lines_that_all_slices_have(path: Path) -> None:
    def edit(line: Acquisition) -> None:
        if line.idx.slice == 1 and line.idx.kspace_encode_step_1 == 5:
            line.setFlag(ismrmrd.ACQ_IS_DUMMYSCAN_DATA)

    info = read_info(write_raw_file(path, edit=edit))
    assert info.undersampled
    assert read_mask(info).mask.nonzero().flatten().tolist() == [n for n in range(2, 30) if n != 7]


def test_partial_echo_and_discarded_samples(path: Path) -> None:
    def edit(line: Acquisition) -> Acquisition:
        """Without the first 10 samples, and with 3 and 2 to discard at the ends."""
        data = np.pad(line.data[:, 10:], ((0, 0), (3, 2)), constant_values=99)
        short = Acquisition.from_array(np.ascontiguousarray(data))
        short.idx = line.idx
        short.discard_pre, short.discard_post, short.center_sample = 3, 2, 24 - 10 + 3
        return short

    expected = noisy_kspace(2, 2, 48, 32)
    expected[:, :, :10] = 0
    assert_reads(write_raw_file(path, edit=edit), expected)


def partitions_of(slices: np.ndarray) -> np.ndarray:
    """The second phase encode of a volume: centred and orthonormal along axis 0."""
    return np.fft.fftshift(np.fft.fft(np.fft.ifftshift(slices, 0), axis=0, norm="ortho"), 0)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_3d_volumes_are_transformed_along_the_second_phase_encode(count: int, path: Path) -> None:
    slices = noisy_kspace(count, 2, 48, 32)
    write_raw_file(path, partitions=partitions_of(slices))
    assert_reads(path, slices)


def test_3d_slice_oversampling_is_cropped(path: Path) -> None:
    slices = noisy_kspace(6, 2, 48, 32)

    def change(text: str) -> str:
        encoded, recon = text.split("<reconSpace>")
        return encoded + "<reconSpace>" + recon.replace("<z>6</z>", "<z>4</z>")

    write_raw_file(path, partitions=partitions_of(slices), header=change)
    assert_reads(path, slices[1:5])


def skip(places: Callable[[int, int], bool]) -> Callable[[Acquisition], None]:
    """Leave out the lines of some (step 1, step 2)."""

    def edit(line: Acquisition) -> None:
        if places(line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2):
            line.setFlag(ismrmrd.ACQ_IS_DUMMYSCAN_DATA)

    return edit


def test_3d_elliptical_shutters_work_and_gaps_do_not(path: Path) -> None:
    partitions = partitions_of(noisy_kspace(6, 2, 48, 32))
    write_raw_file(
        path, partitions=partitions, edit=skip(lambda y, z: (y - 14) ** 2 / 200 + (z - 3) ** 2 / 9 > 1)
    )
    info = read_info(path)
    assert info.n_slices == 6 and not info.undersampled
    gaps = write_raw_file(
        path.with_name("b.h5"), partitions=partitions, edit=skip(lambda y, z: (y + z) % 2 == 1)
    )
    with pytest.raises(UserError, match="undersampled along its second phase encode"):
        read_info(gaps)
    lines = write_raw_file(path.with_name("c.h5"), partitions=partitions, edit=skip(lambda y, z: y % 4 == 1))
    info = read_info(lines)
    assert info.undersampled and int(read_mask(info).mask.sum()) == 21


def test_signs_that_the_scanner_left_alternating(path: Path) -> None:
    def edit(line: Acquisition) -> None:
        line.data[:] *= (-1) ** line.idx.kspace_encode_step_1

    chopped = replace("<value>1</value>", "<value>0</value>")
    assert_reads(write_raw_file(path, edit=edit, header=chopped), noisy_kspace(2, 2, 48, 32))


def test_lines_beyond_the_headers_limit_are_no_image_lines(path: Path) -> None:
    write_raw_file(path, header=replace("<maximum>27</maximum>", "<maximum>24</maximum>"))
    assert_reads(path, noisy_kspace(2, 2, 48, 32), range(2, 27))


def test_headers_may_lack_their_limits_and_ask_for_a_larger_image(path: Path) -> None:
    def change(text: str) -> str:
        start, end = text.index("<encodingLimits>"), text.index("</encodingLimits>")
        return (text[:start] + text[end + len("</encodingLimits>") :]).replace(
            "<x>24</x><y>30</y>", "<x>96</x><y>64</y>"
        )

    info = read_info(write_raw_file(path, lines=range(32), header=change))
    assert info.padding == (0, 32) and info.recon == (48, 32)
    assert read_slice(info, 0)[1].shape == (48, 32)


def test_readout_oversampling_that_the_header_forgot_is_kept(path: Path) -> None:
    write_raw_file(
        path, header=replace("<encodedSpace><matrixSize><x>48</x>", "<encodedSpace><matrixSize><x>24</x>")
    )
    assert_reads(path, noisy_kspace(2, 2, 48, 32))


def test_an_encoding_that_no_line_uses_does_not_matter(path: Path) -> None:
    assert_reads(write_raw_file(path, header=two_encodings), noisy_kspace(2, 2, 48, 32))


def test_images_of_coils_agree_with_what_was_seen(path: Path) -> None:
    """From images to a 3-D file and back, without this library's transforms: no shift, no flip, no scale."""
    images = coil_images(4, 2, 32, 20)
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes)
    write_raw_file(path, partitions=partitions_of(kspace), lines=range(20), image=(32, 20))
    info = read_info(path)
    for index in range(4):
        expected = np.sqrt((np.abs(images[index]) ** 2).sum(0))
        np.testing.assert_allclose(read_slice(info, index)[1], expected, atol=1e-5 * expected.max())

"""The writer of tiny ISMRMRD raw files, by the package that defines the format. All their content is synthetic."""

from collections.abc import Callable, Sequence
from pathlib import Path

import ismrmrd
import numpy as np

from tests.data.synthetic import noisy_kspace

RAW_HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <subjectInformation><patientID>p-17</patientID></subjectInformation>
  <measurementInformation><protocolName>Knee  PD TSE</protocolName></measurementInformation>
  <acquisitionSystemInformation>
    <systemVendor>Maker</systemVendor><systemModel>Model 3</systemModel>
    <systemFieldStrength_T>2.9</systemFieldStrength_T><receiverChannels>{coils}</receiverChannels>
  </acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace><matrixSize><x>{readout}</x><y>{phase}</y><z>{depth}</z></matrixSize>
      <fieldOfView_mm><x>320</x><y>160</y><z>5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>{height}</x><y>{width}</y><z>{slices}</z></matrixSize>
      <fieldOfView_mm><x>160</x><y>160</y><z>5</z></fieldOfView_mm></reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
      </kspace_encoding_step_1>
      <kspace_encoding_step_2><minimum>0</minimum><maximum>{last}</maximum><center>{middle}</center>
      </kspace_encoding_step_2>
    </encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
  <userParameters>
    <userParameterLong><name>ChopY</name><value>1</value></userParameterLong>
  </userParameters>
</ismrmrdHeader>"""


def replace(old: str, new: str) -> Callable[[str], str]:
    """A change of a header for `write_raw_file`."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def two_encodings(text: str) -> str:
    """The header with its encoding twice."""
    encoding = text[text.index("<encoding>") : text.index("<userParameters>")]
    return text.replace("<encoding>", encoding + "<encoding>", 1)


def write_raw_file(
    path: Path,
    kspace: np.ndarray | None = None,
    *,
    partitions: np.ndarray | None = None,
    image: tuple[int, int] = (24, 30),
    lines: Sequence[int] | None = None,
    averages: int = 1,
    header: Callable[[str], str] = lambda text: text,
    edit: Callable[[ismrmrd.Acquisition], ismrmrd.Acquisition | None] = lambda acquisition: None,
) -> Path:
    """An ISMRMRD file: a noise scan, then the readouts of `kspace` (slice, coil, y, x) in interleaved order.

    3-D files give `partitions` (kz, coil, y, x) instead, with kz centred. `lines` are the columns acquired; by
    default all but two on each side. `header` and `edit` change the header's text and each readout before writing;
    `edit` may give another readout instead.
    """
    if kspace is None:
        kspace = noisy_kspace(2, 2, 48, 32) if partitions is None else partitions
    count, coils, readout, phase = kspace.shape
    lines = range(2, phase - 2) if lines is None else lines
    first, depth = min(lines), count if partitions is not None else 1
    text = header(
        RAW_HEADER.format(
            coils=coils,
            readout=readout,
            phase=phase,
            depth=depth,
            height=image[0],
            width=image[1],
            slices=depth,
            maximum=max(lines) - first,
            center=phase // 2 - first,
            last=depth - 1,
            middle=depth // 2,
        )
    )
    with ismrmrd.Dataset(str(path), "dataset", mode="w") as dataset:
        dataset.write_xml_header(text.encode())
        noise = ismrmrd.Acquisition.from_array(np.full((coils, 16), 7 + 7j, np.complex64))
        noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        dataset.append_acquisition(noise)
        for average in range(averages):
            for column in lines:
                for place in range(count):
                    acquisition = ismrmrd.Acquisition.from_array(
                        kspace[place, :, :, column].astype(np.complex64)
                    )
                    acquisition.center_sample = readout // 2
                    acquisition.idx.kspace_encode_step_1 = column - first
                    acquisition.idx.average = average
                    if partitions is None:
                        acquisition.idx.slice = place
                    else:
                        acquisition.idx.kspace_encode_step_2 = place
                    dataset.append_acquisition(edit(acquisition) or acquisition)
    return path

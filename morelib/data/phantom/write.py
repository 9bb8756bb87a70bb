"""Write a volume in the fastMRI HDF5 layout."""

from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
from numpy.typing import NDArray

from morelib.data.pathology import ATTRIBUTE, Box, boxes_text
from morelib.data.phantom.matrix import Matrix
from morelib.data.phantom.protocol import Protocol
from morelib.data.phantom.subject import Geometry
from morelib.errors import UserError
from morelib.files import atomic_path

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
GAMMA_MHZ_PER_T = 42.577


def write_volume(
    path: Path,
    kspace: NDArray[np.complex64],
    target: NDArray[np.float32],
    header: bytes,
    acquisition: str,
    patient: str,
    boxes: list[Box],
) -> None:
    """Write k-space (slices, coils, readout, phase) and target (slices, h, w); same input, same bytes.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    try:
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            file.create_dataset("ismrmrd_header", data=np.bytes_(header))
            file.create_dataset("kspace", data=kspace)
            file.create_dataset("reconstruction_rss", data=target)
            file.attrs["acquisition"] = acquisition
            file.attrs["max"] = float(target.max())
            file.attrs["norm"] = float(np.linalg.norm(target))
            file.attrs["patient_id"] = patient
            file.attrs["synthetic"] = True
            file.attrs[ATTRIBUTE] = boxes_text(boxes)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error}); free space or choose another folder"
        ) from error


def ismrmrd_header(protocol: Protocol, matrix: Matrix, slices: int, geometry: Geometry) -> bytes:
    """The ISMRMRD XML header of a volume."""
    center, maximum = protocol.limits(matrix.phase)
    pixel = 2 * geometry.fov / matrix.readout
    root = ElementTree.Element("ismrmrdHeader", xmlns=NAMESPACE)

    def add(parent: ElementTree.Element, name: str, value: object = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, name)
        if value is not None:
            element.text = str(value)
        return element

    system = add(root, "acquisitionSystemInformation")
    add(system, "systemVendor", "none")
    add(system, "systemModel", f"{protocol.scanner} (synthetic phantom)")
    add(system, "systemFieldStrength_T", protocol.field_t)
    add(system, "receiverChannels", matrix.coils)
    conditions = add(root, "experimentalConditions")
    add(conditions, "H1resonanceFrequency_Hz", round(protocol.field_t * GAMMA_MHZ_PER_T * 1e6))
    encoding = add(root, "encoding")
    for name, (x, y) in (("encodedSpace", (matrix.readout, matrix.phase)), ("reconSpace", matrix.recon)):
        space = add(encoding, name)
        cells, extent = add(space, "matrixSize"), add(space, "fieldOfView_mm")
        for axis, n, length in (("x", x, x * pixel), ("y", y, y * pixel), ("z", 1, geometry.thickness)):
            add(cells, axis, n)
            add(extent, axis, length)
    limits = add(encoding, "encodingLimits")
    for name, high, middle in (("kspace_encoding_step_1", maximum, center), ("slice", slices - 1, 0)):
        limit = add(limits, name)
        add(limit, "minimum", 0)
        add(limit, "maximum", high)
        add(limit, "center", middle)
    add(encoding, "trajectory", "cartesian")
    sequence = add(root, "sequenceParameters")
    for name, number in (
        ("TR", protocol.tr_ms),
        ("TE", protocol.te_ms),
        ("TI", protocol.ti_ms),
        ("flipAngle_deg", protocol.flip_deg),
    ):
        add(sequence, name, number)
    add(sequence, "sequence_type", protocol.sequence)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)

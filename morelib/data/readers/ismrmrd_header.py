"""The ISMRMRD header, an XML text: matrix sizes, phase-encode limits, the scanner."""

import math
from pathlib import Path
from xml.etree import ElementTree

from morelib.data.readers.hdf5 import text_of
from morelib.errors import UserError

Header = ElementTree.Element


def parse_header(raw: object, path: Path) -> Header:
    """Parse the XML text. Document types and entities are refused: headers need none, and they expand."""
    try:
        text = text_of(raw)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise UserError(f"{path}: the header declares a document type or entity; remove it from the file")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path}: the header is not valid XML ({error}); download or make the file again"
        ) from error


def header_text(header: Header, query: str) -> str | None:
    """The text at `query`, tags joined by slashes, in whichever namespace, on one line; None where there is none."""
    found = header.find("/".join("{*}" + tag for tag in query.split("/")))
    return None if found is None else " ".join((found.text or "").split()) or None


def header_number(header: Header, path: Path, query: str, least: int | None = None) -> int:
    """The whole number at `query`; UserError where there is none or one below `least`."""
    value = header_text(header, query)
    try:
        number = int(value or "")
        if least is None or number >= least:
            return number
    except ValueError:
        pass
    wanted = "whole number" if least is None else f"whole number from {least}"
    raise UserError(
        f"{path}: the header has no {wanted} at {query} ({value and value[:20]}); check the header"
    )


def field_strength(header: Header) -> float | None:
    """In tesla, None where the header does not say."""
    try:
        tesla = float(header_text(header, "acquisitionSystemInformation/systemFieldStrength_T") or "")
    except ValueError:
        return None
    return tesla if math.isfinite(tesla) else None


def scanner_model(header: Header) -> str | None:
    """The scanner's model name, None where the header does not say."""
    return header_text(header, "acquisitionSystemInformation/systemModel")


def acquired_columns(header: Header, path: Path, phase: int) -> tuple[int, int]:
    """The acquired phase columns [left, right) as fastMRI computes them, clipped to the matrix.

    Raises UserError where the limits are missing or leave no column.
    """
    limits = "encoding/encodingLimits/kspace_encoding_step_1/"
    left = phase // 2 - header_number(header, path, limits + "center")
    right = left + header_number(header, path, limits + "maximum") + 1
    left, right = max(left, 0), min(right, phase)
    if left >= right:
        raise UserError(
            f"{path}: the header puts every phase column outside the acquired range; check the header"
        )
    return left, right

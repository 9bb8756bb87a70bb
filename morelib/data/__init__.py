"""Reading volumes, splitting them by patient, slices for training and evaluation; `phantom` makes volumes."""

from morelib.data.dataset import Batch, Slice, SliceDataset, collate, loader
from morelib.data.splits import shared_patients, split_by_patient, split_by_volume
from morelib.data.volume import CATEGORIES, CATEGORY_NAMES, VolumeInfo, find_volumes, read_info, read_slice

__all__ = [
    "CATEGORIES",
    "CATEGORY_NAMES",
    "Batch",
    "Slice",
    "SliceDataset",
    "VolumeInfo",
    "collate",
    "find_volumes",
    "loader",
    "read_info",
    "read_slice",
    "shared_patients",
    "split_by_patient",
    "split_by_volume",
]

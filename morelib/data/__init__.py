"""Reading volumes, splitting them by patient, slices for training and evaluation; `phantom` makes volumes."""

from morelib.data.batches import Batch, Loader, collate
from morelib.data.dataset import Slice, SliceDataset
from morelib.data.index import find_volumes
from morelib.data.readers import read_info, read_slice
from morelib.data.splits import official_split, shared_patients, split_by_patient, split_by_volume
from morelib.data.volume import CATEGORIES, CATEGORY_NAMES, VolumeInfo

__all__ = [
    "CATEGORIES",
    "CATEGORY_NAMES",
    "Batch",
    "Loader",
    "Slice",
    "SliceDataset",
    "VolumeInfo",
    "collate",
    "find_volumes",
    "official_split",
    "read_info",
    "read_slice",
    "shared_patients",
    "split_by_patient",
    "split_by_volume",
]

"""Downloads of free data, by byte ranges, so that a few subjects do not cost gigabytes."""

from morelib.data.fetch.m4raw import (
    CONTRASTS,
    LICENCE,
    RECORD_URL,
    SPLITS,
    FetchReport,
    Progress,
    fetch_m4raw,
)

__all__ = ["CONTRASTS", "LICENCE", "RECORD_URL", "SPLITS", "FetchReport", "Progress", "fetch_m4raw"]

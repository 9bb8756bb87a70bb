"""Downloads of free data, by byte ranges, so that a few subjects do not cost gigabytes."""

from morelib.data.fetch.m4raw import LICENCE, FetchReport, fetch_m4raw

__all__ = ["LICENCE", "FetchReport", "fetch_m4raw"]

"""Mixture-of-experts routing: router, selection, losses, cached inputs, dispatch. Knows nothing of MRI."""

from morelib.routing.moe import RoutingRecord, SampleRouting, losses_of
from morelib.routing.pixel import PixelRouting
from morelib.routing.router import Router

__all__ = ["PixelRouting", "Router", "RoutingRecord", "SampleRouting", "losses_of"]

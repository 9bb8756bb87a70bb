"""How fast and how large the parts are, as ratios taken by turns in one run; what `morelib bench` prints."""

"""Physics: centred FFT, masks, coil maps, the SENSE operator, data consistency."""

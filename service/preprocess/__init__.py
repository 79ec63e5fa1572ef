"""Pure functions on waveforms: decode, select channels, resample, trim."""

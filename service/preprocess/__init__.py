"""From an upload to clips for the model: decode, select channels, cut, resample, trim."""

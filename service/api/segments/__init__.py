"""Long recordings, `granularity=segment`: read piece by piece, and answered utterance by utterance."""

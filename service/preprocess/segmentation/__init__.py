"""Speech detection, and cutting speech into utterances."""

"""Finding speech, and cutting it into utterances."""

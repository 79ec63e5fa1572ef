"""Live audio: which windows and utterances are due, and their scores."""

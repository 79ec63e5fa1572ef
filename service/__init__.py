"""A REST service for speech emotion recognition around emotion2vec+."""

__version__ = "0.1.0"

"""Accuracy: agreement with FunASR, effects of trimming, and segmentation of long calls."""

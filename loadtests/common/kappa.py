"""Cohen's kappa."""

import numpy as np
from numpy.typing import ArrayLike


def cohen_kappa(one: ArrayLike, other: ArrayLike) -> float:
    """Agreement of two lists of labels beyond chance; 1 if all are equal (Cohen 1960)."""
    first, second = np.asarray(one), np.asarray(other)
    observed = float(np.mean(first == second))
    chance = sum(float(np.mean(first == label) * np.mean(second == label)) for label in np.union1d(first, second))
    return 1.0 if observed == 1 else (observed - chance) / (1 - chance)

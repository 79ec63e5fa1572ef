import numpy as np
import pytest

from loadtests.common.kappa import cohen_kappa


def test_kappa() -> None:
    one = np.array([0, 0, 1, 1, 2, 2])
    assert cohen_kappa(one, one) == 1
    assert cohen_kappa(one, np.array([0, 0, 1, 1, 1, 1])) == pytest.approx(0.5)
    assert cohen_kappa(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])) == 0
    assert cohen_kappa(np.zeros(3, np.int64), np.zeros(3, np.int64)) == 1

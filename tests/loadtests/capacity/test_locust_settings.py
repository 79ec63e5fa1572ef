import pytest

from loadtests.capacity.locust_settings import LocustSettings


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("steady", [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]),
        ("step", [2, 2, 2, 5, 5, 8, 8, 8, 10, 10]),
        ("spike", [2, 2, 2, 2, 10, 10, 2, 2, 2, 2]),
        ("soak", [1, 8, 8, 8, 8, 8, 8, 8, 8, 8]),
    ],
)
def test_shapes(shape: str, users: list[int]) -> None:
    settings = LocustSettings.read({"LOAD_SHAPE": shape, "LOAD_USERS": "10", "LOAD_SECONDS": "100"})
    assert [settings.users_at(10.0 * tenth) for tenth in range(10)] == users
    assert settings.users_at(100.0) is None


def test_there_is_always_a_caller() -> None:
    settings = LocustSettings.read({"LOAD_SHAPE": "soak", "LOAD_USERS": "1"})
    assert settings.users_at(0) == 1


def test_bad_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="LOAD_SHAPE is 'wave'"):
        LocustSettings.read({"LOAD_SHAPE": "wave"})
    with pytest.raises(ValueError, match="many"):
        LocustSettings.read({"LOAD_USERS": "many"})


def test_limits() -> None:
    limits = {"LOAD_P99_MS": "100", "LOAD_ERROR_RATIO": "0.01", "LOAD_REFUSED_RATIO": "0.5"}
    settings = LocustSettings.read(limits)
    assert settings.failures(accepted=990, refused=0, failed=10, p99=100) == []
    assert "P99 is 101 ms" in settings.failures(990, 0, 0, 101)[0]
    assert "11 of 1000 requests failed" in settings.failures(989, 0, 11, 1)[0]
    assert "501 of 1000 requests were refused" in settings.failures(499, 501, 0, 1)[0]
    assert len(settings.failures(1, 501, 498, 1000)) == 3
    assert settings.failures(0, 0, 0, 0) == ["none of 0 requests was accepted"]

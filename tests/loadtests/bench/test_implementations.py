from loadtests.bench.implementations import NumpyPreprocessing


def test_preprocessing_on_the_cpu_is_timed() -> None:
    preprocessing = NumpyPreprocessing()
    assert preprocessing.resample() > 0
    assert preprocessing.trim() > 0

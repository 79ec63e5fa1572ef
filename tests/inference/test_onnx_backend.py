"""The CPU backend on the embedded model."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from service.data import EXAMPLES
from service.errors import ModelNotFound
from service.inference.backends.onnx_backend import SHARED_SECONDS, SHARING_UP_TO, OnnxBackend, runs
from service.model.manifest import WEIGHTS, Manifest
from service.model.store import find
from service.results import SAMPLING_RATE, BatchOutput, Clip, ClipOutput, Floats, Int8Error
from tests.rounding import embedding_tolerance, logit_tolerance


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxBackend]:
    stored = find("tiny", cache=tmp_path_factory.mktemp("cache"), offline=True)
    backend = OnnxBackend(stored.directory, stored.manifest, dtype="fp32", threads=2)
    backend.warm_up()
    yield backend
    backend.close()


def clip_of(name: str, **options: bool) -> Clip:
    samples, rate = soundfile.read(EXAMPLES / name, dtype="float32")
    return Clip(samples, rate, **options)


def label(logits: Floats, backend: OnnxBackend) -> str:
    return backend.info.labels[int(logits.mean(axis=0).argmax())].en


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*a*")), ids=lambda path: path.stem)
def test_the_bundled_clips_are_recognised(backend: OnnxBackend, path: Path) -> None:
    output = backend.run([clip_of(path.name)])
    assert label(output.clips[0].logits, backend) == path.stem


def assert_same_values(one: ClipOutput, other: ClipOutput) -> None:
    np.testing.assert_array_equal(one.logits, other.logits)
    np.testing.assert_array_equal(one.embedding, other.embedding)


def assert_same_but_for_rounding(one: ClipOutput, other: ClipOutput, directory: Path) -> None:
    config = Manifest.read(directory).config
    head = load_file(directory / WEIGHTS)["proj.weight"].astype(np.float32)
    frames = other.logits.shape[0]
    of_logits = logit_tolerance(config, frames + config.num_extra_tokens, head)
    np.testing.assert_allclose(one.logits, other.logits, atol=of_logits, rtol=0)
    np.testing.assert_allclose(one.embedding, other.embedding, atol=embedding_tolerance(config, frames), rtol=0)


def test_clips_that_are_too_long_to_share_a_run_answer_exactly_as_alone(backend: OnnxBackend) -> None:
    clips = [clip_of(name) for name in ("happy.wav", "disgusted.flac", "sad.flac")]
    together = backend.run(clips)
    assert together.padding_ratio == 0
    for clip, answer in zip(clips, together.clips, strict=True):
        assert answer.scored.end - answer.scored.start > SHARING_UP_TO
        assert_same_values(answer, backend.run([clip]).clips[0])


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_short_clips_of_a_batch_answer_as_alone(dtype: Literal["fp32", "int8"], tmp_path: Path) -> None:
    """Exactly on x86-64, whose kernels sum in an order independent of rows."""
    stored = find("tiny", cache=tmp_path, offline=True)
    backend = OnnxBackend(stored.directory, stored.manifest, dtype=dtype, threads=2)
    speech = np.concatenate([clip_of(name).samples for name in ("happy.wav", "angry.flac", "fearful.flac")])
    lengths = (1.0, 0.4, 2.0, 1.3, 0.025, 0.9, 1.1, 1.5)
    clips = [
        Clip(speech[begin * SAMPLING_RATE // 2 :][: round(seconds * SAMPLING_RATE)], SAMPLING_RATE, trim=False)
        for begin, seconds in enumerate(lengths)
    ]
    clips[3] = Clip(clips[3].samples, SAMPLING_RATE, frame_embeddings=True)
    sizes = [clip.samples.size for clip in clips]
    assert sizes == [round(seconds * SAMPLING_RATE) for seconds in lengths]
    for index, (clip, answer) in enumerate(zip(clips, backend.run(clips).clips, strict=True)):
        alone = backend.run([clip]).clips[0]
        if platform.machine() == "x86_64":
            assert_same_values(answer, alone)
        elif dtype == "fp32":  # in INT8 a rounding error can move an input to the next byte
            assert_same_but_for_rounding(answer, alone, stored.directory)
        assert (answer.speech, answer.scored) == (alone.speech, alone.scored)
        assert (answer.frame_embeddings is not None) == (index == 3)
    backend.close()


def test_which_clips_share_a_run() -> None:
    second = SAMPLING_RATE
    assert runs([5 * second], SHARING_UP_TO) == [[0]]
    assert runs([second, 2 * second, second], SHARING_UP_TO) == [[0, 2], [1]]
    assert runs([second] * 8, SHARING_UP_TO) == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert runs([second, second], 0.0) == [[0], [1]]
    lengths = np.random.default_rng(0).integers(400, 2 * second, 100).tolist()
    shared = [run for run in runs(lengths, SHARING_UP_TO) if len(run) > 1]
    assert len(shared) < 20
    assert all(sum(lengths[index] for index in run) <= SHARED_SECONDS * second for run in shared)
    assert sorted(index for run in runs(lengths, SHARING_UP_TO) for index in run) == list(range(100))


def test_the_embedding_is_the_mean_of_frame_embeddings_which_come_only_when_asked_for(backend: OnnxBackend) -> None:
    asked = backend.run([clip_of("sad.flac", frame_embeddings=True)]).clips[0]
    assert asked.frame_embeddings is not None
    assert asked.frame_embeddings.shape == (asked.logits.shape[0], backend.info.embedding_size)
    mean = asked.frame_embeddings.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(asked.embedding, mean, rtol=2.0**-23)  # rounded to float32
    assert backend.run([clip_of("sad.flac")]).clips[0].frame_embeddings is None


def test_silence_around_speech_is_trimmed_and_reported(backend: OnnxBackend) -> None:
    speech = clip_of("happy.wav").samples
    second = np.zeros(SAMPLING_RATE, np.float32)
    padded = np.concatenate([second, speech, second])
    trimmed = backend.run([Clip(padded, SAMPLING_RATE)]).clips[0]
    whole = backend.run([Clip(padded, SAMPLING_RATE, trim=False)]).clips[0]
    assert trimmed.speech == whole.speech == trimmed.scored
    assert trimmed.speech is not None
    assert 0.9 < trimmed.speech.start < 1.1
    assert whole.scored.start == 0
    assert whole.scored.end == padded.size / SAMPLING_RATE
    alone = backend.run([Clip(speech, SAMPLING_RATE)]).clips[0]
    assert abs(trimmed.logits.shape[0] - alone.logits.shape[0]) <= 3


def test_a_silent_clip_is_scored_whole(backend: OnnxBackend) -> None:
    output = backend.run([Clip(np.zeros(8000, np.float32), SAMPLING_RATE)]).clips[0]
    assert output.speech is None
    assert output.scored.end == 0.5
    assert np.isfinite(output.logits).all()


def test_any_rate_gives_the_same_answer(backend: OnnxBackend) -> None:
    import soxr

    clip = clip_of("neutral.flac")
    faster = Clip(soxr.resample(clip.samples, SAMPLING_RATE, 44_100).astype(np.float32), 44_100)
    one, other = (backend.run([each]).clips[0].logits.mean(axis=0) for each in (clip, faster))
    np.testing.assert_allclose(one, other, atol=0.05)


def test_a_long_clip_gives_its_memory_back(backend: OnnxBackend) -> None:
    long = np.random.default_rng(0).standard_normal(40 * SAMPLING_RATE).astype(np.float32)
    assert backend.run([Clip(long, SAMPLING_RATE)]).clips[0].logits.shape[0] == 1999
    assert backend.memory() == {}


def test_a_precision_that_was_not_prepared_is_named(tmp_path: Path) -> None:
    stored = find("tiny", cache=tmp_path, offline=True)
    with pytest.raises(ModelNotFound, match="int8"):
        OnnxBackend(tmp_path, stored.manifest, dtype="int8", threads=1)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (Int8Error(0.02, 0.99, 100), "INFO"),
        (Int8Error(0.021, 1.0, 24), "WARNING"),
        (Int8Error(0.001, 23 / 24, 24), "WARNING"),
    ],
)
def test_int8_tells_its_error_and_warns_of_a_large_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Int8Error, level: str
) -> None:
    stored = find("tiny", cache=tmp_path, offline=True)
    manifest = replace(stored.manifest, int8_error=error)
    caplog.set_level("INFO")
    OnnxBackend(stored.directory, manifest, dtype="fp32", threads=1)
    assert not caplog.records
    OnnxBackend(stored.directory, manifest, dtype="int8", threads=1)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, f"tiny in INT8: {error}")]


def test_a_backend_for_a_few_clips_is_not_warmed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = find("tiny", cache=tmp_path, offline=True)
    for few, count in ((True, 0), (False, 2)):
        backend = OnnxBackend(stored.directory, stored.manifest, dtype="fp32", threads=1, few=few)
        called: list[object] = []

        def run(clips: Sequence[Clip]) -> BatchOutput:
            called.append(clips)  # noqa: B023
            return BatchOutput((), preprocess_seconds=0.5, inference_seconds=1.5)

        monkeypatch.setattr(backend, "run", run)
        assert backend.warm_up() == (None if few else 1.0), "seconds for a second of audio"
        assert len(called) == count


def test_a_backend_for_a_few_clips_gives_the_same_answers_but_for_rounding(tmp_path: Path) -> None:
    stored = find("tiny", cache=tmp_path, offline=True)
    clip = clip_of("happy.wav")

    def answer(dtype: Literal["fp32", "int8"], few: bool) -> ClipOutput:
        return OnnxBackend(stored.directory, stored.manifest, dtype=dtype, threads=2, few=few).run([clip]).clips[0]

    packed = answer("fp32", few=False)
    assert_same_but_for_rounding(answer("fp32", few=True), packed, stored.directory)
    # In INT8 a rounding error can move an activation to the next byte, which is part of the error of quantisation.
    quantised = answer("int8", few=False)
    quantisation = np.abs(quantised.logits - packed.logits).max()
    assert np.abs(answer("int8", few=True).logits - quantised.logits).max() < quantisation


_ONE_RUN = """
import numpy
from service.inference.backends.onnx_backend import OnnxBackend
from service.model.store import find
from pathlib import Path
stored = find("tiny", cache=Path("none"), offline=True)
OnnxBackend(stored.directory, stored.manifest, dtype="fp32", threads=1).warm_up()
"""


_TIME_AFTER_A_RUN = """
import time
import numpy
from service.inference.backends.onnx_backend import OnnxBackend
from service.model.store import find
from service.results import Clip
from pathlib import Path
stored = find("tiny", cache=Path("none"), offline=True)
backend = OnnxBackend(stored.directory, stored.manifest, dtype="fp32", threads=2)
clip = Clip(numpy.random.default_rng(0).standard_normal(48_000, numpy.float32), 16_000)
taken = []
for _ in range(5):
    backend.run([clip])
    began = time.process_time()
    time.sleep(0.1)
    taken.append(time.process_time() - began)
    backend._prepare(clip)
    began = time.process_time()
    time.sleep(0.1)
    taken.append(time.process_time() - began)
print(sorted(taken)[len(taken) // 2])
"""


def test_no_thread_spins_after_a_run_or_after_preprocessing() -> None:
    """Neither threads of ONNX Runtime nor of a BLAS, which would take a core from the next run."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", _TIME_AFTER_A_RUN]
    found = subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True, text=True)
    assert float(found.stdout) < 0.005


def test_onnx_runtime_keeps_no_telemetry(tmp_path: Path) -> None:
    """If its telemetry is on, ONNX Runtime writes a device id and a database into the home directory."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", _ONE_RUN], env=environment, check=True, timeout=60, cwd=EXAMPLES.parents[1])
    assert list(tmp_path.rglob("*")) == []


def long_speech(seconds: int) -> Clip:
    return Clip(np.resize(clip_of("sad.flac").samples, seconds * SAMPLING_RATE), SAMPLING_RATE)


def test_a_run_can_be_ended_by_another_thread(backend: OnnxBackend) -> None:
    expected = backend.run([clip_of("sad.flac")]).clips[0]
    cancellation: Future[None] = Future()
    with ThreadPoolExecutor(1) as thread:
        began = time.process_time()
        run = thread.submit(backend.run, [long_speech(120)], cancellation)
        while time.process_time() - began < 0.2:  # until the model runs: preparing the clip takes less
            assert not run.done()
        cancellation.cancel()
        with pytest.raises(Exception, match="terminate"):
            run.result(timeout=60)
    assert_same_values(backend.run([clip_of("sad.flac")]).clips[0], expected)


def test_a_cancelled_run_does_not_begin(backend: OnnxBackend) -> None:
    cancellation: Future[None] = Future()
    cancellation.cancel()
    with pytest.raises(Exception, match="terminate"):
        backend.run([clip_of("sad.flac")], cancellation)

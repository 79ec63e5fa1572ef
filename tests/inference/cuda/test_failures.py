"""Errors of a GPU after which the process cannot use it any more, and errors of one batch."""

from __future__ import annotations

import pytest

from service.errors import BackendBroken
from service.results import ClipOutput

pytest.importorskip("torch")

import torch

from service.inference.backends.torch_backend import TorchBackend
from tests.inference.cuda.comparing import MARKS, MIXED, check
from tests.inference.cuda.running import run_program

pytestmark = MARKS


LASTING_ERROR = """
import sys
from pathlib import Path
import torch
from service.errors import BackendBroken
from service.inference.backends.torch_backend import TorchBackend
from service.model.synthetic_speech import speech_like
from service.model.store import find
from service.results import Clip

stored = find("tiny", cache=Path("/nonexistent"), offline=True)
backend = TorchBackend(stored.directory, stored.manifest, device="cuda")
clips = [Clip(speech_like(1.0), 16_000)]
backend.run(clips)
sound = backend._encoder.encode

def crash(waveforms, frames=None):
    # Out of range: an assertion in the kernel fails, and the context is lost.
    torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")]
    return sound(waveforms, frames)

backend._encoder.encode = crash
for _ in range(2):
    try:
        backend.run(clips)
    except BackendBroken:
        print("broken")
backend._encoder.encode = sound
try:
    backend.run(clips)
except BackendBroken:
    print("broken for good")
try:
    TorchBackend(stored.directory, stored.manifest, device="cuda")
except Exception:
    print("no other either")
sys.stdout.flush()
import os
os._exit(0)
"""


def test_after_a_lasting_error_only_another_process_can_use_the_gpu() -> None:
    """The process of the test itself can still use the GPU."""
    assert run_program(LASTING_ERROR).splitlines() == [
        "broken",
        "broken",
        "broken for good",
        "no other either",
    ]
    assert torch.zeros(1, device="cuda").item() == 0


def test_a_passing_error_concerns_its_batch_only(
    compiled: TorchBackend, expected: list[ClipOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> object:
        torch.randn(2, 3, device="cuda") @ torch.randn(2, 3, device="cuda")
        return None

    with monkeypatch.context() as patch:
        patch.setattr(compiled._encoder, "answer", refuse)
        with pytest.raises(RuntimeError) as caught:
            compiled.run(MIXED[:2])
        assert not isinstance(caught.value, BackendBroken)
    check(compiled.run(MIXED[:2]).clips, expected[:2], 1e-2)

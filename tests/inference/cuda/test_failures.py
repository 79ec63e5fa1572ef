"""Errors of a GPU: those that stick, and those that pass."""

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


STICKY = """
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
sound = backend._encoder.answer

def crash(waveforms, frames=None):
    # Out of range: an assertion in the kernel fails, and the context is lost.
    torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")]
    return sound(waveforms, frames)

backend._encoder.answer = crash
for _ in range(2):
    try:
        backend.run(clips)
    except BackendBroken:
        print("broken")
backend._encoder.answer = sound
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


def test_an_error_that_sticks_breaks_the_backend_and_the_process() -> None:
    """What the process cannot do any more, another one can: this one, for instance."""
    assert run_program(STICKY).splitlines() == [
        "broken",
        "broken",
        "broken for good",
        "no other either",
    ]
    assert torch.zeros(1, device="cuda").item() == 0


def test_an_error_that_passes_concerns_its_batch_alone(
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

from __future__ import annotations

import numpy as np
import pytest

from loadtests.common.hub_checkpoints import LABELS, make_weights, model_conf
from service.model.config import ModelConfig

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from service.model.network.encoder import Encoder  # noqa: E402
from service.model.network.input_means import input_means  # noqa: E402

CONFIG = ModelConfig.from_hub(model_conf(prenet_depth=1, depth=1))


def test_means_are_those_of_all_tokens_of_all_waveforms() -> None:
    weights = {name: torch.from_numpy(values) for name, values in make_weights(CONFIG, len(LABELS)).items()}
    encoder = Encoder.from_weights(CONFIG, weights, device=torch.device("cpu"), dtype=torch.float32)
    rng = np.random.default_rng(0)
    waveforms = [rng.standard_normal(samples).astype(np.float32) for samples in (4000, 9001)]
    found = input_means(encoder, waveforms)
    linear = [name for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)]
    assert set(found) == set(linear)
    with torch.inference_mode():
        features = [encoder(torch.from_numpy(waveform)[None])[0][0] for waveform in waveforms]
    # The head has no part in the encoder's extra tokens, so that its inputs are the features.
    np.testing.assert_allclose(found["proj"], torch.cat(features).mean(dim=0).numpy(), atol=1e-5)
    assert found["blocks.0.mlp.fc2"].shape == (CONFIG.mlp_dim,)
    assert not any(module._forward_pre_hooks for module in encoder.modules())

import pytest
import yaml

from loadtests.bench import flops
from loadtests.common.paths import DATA
from service.model.config import ModelConfig


def test_operations_of_the_published_model() -> None:
    published = yaml.safe_load((DATA / "config.yaml").read_text(encoding="utf-8"))
    config = ModelConfig.from_hub(published["model_conf"])
    # Counted by hand, block by block, for 249 frames and 259 tokens.
    assert flops.operations(config, 5.0) == pytest.approx(109, abs=1)

from __future__ import annotations

import pytest

from service.errors import MissingExtra
from service.extras import torch_extra


@pytest.mark.parametrize("name", ["torch", "torch.nn", "onnx", "modelscope_hub"])
def test_what_the_extra_provides_is_asked_for(name: str) -> None:
    message = r"^Preparing needs \w+, .*emotion2vec-service\[torch\]"
    with pytest.raises(MissingExtra, match=message), torch_extra("Preparing"):
        raise ModuleNotFoundError(name=name)


def test_other_missing_modules_are_not_blamed_on_the_extra() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, torch_extra("Preparing"):
        raise ModuleNotFoundError(name="numpy")
    assert caught.value.name == "numpy"

"""Products in bytes compared with plain integers: no processor may saturate, and no row may influence another."""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.data import MODELS

onnx = pytest.importorskip("onnx")
int8 = pytest.importorskip("service.model.onnx.int8")
operators = pytest.importorskip("service.model.onnx.operators")
pytestmark = pytest.mark.torch  # onnx comes with that extra

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Floats = NDArray[np.float32]
LARGEST_16_BIT = 2**15 - 1


def saturating(rows: int, columns: int) -> Floats:
    """A matrix whose neighbouring weights are all as large as they can be, of equal and of opposite signs."""
    rng = np.random.default_rng(rows)
    matrix = rng.choice(np.array([-1, 1], np.float32), (rows, columns))
    matrix[:, 0], matrix[:, 1] = 1, -1
    return matrix


def matrices() -> dict[str, Floats]:
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(2, (256, 40))
    return {
        "saturating": saturating(192, 48),
        "normal": rng.standard_normal((128, 33)).astype(np.float32),
        "uniform": rng.uniform(-1, 1, (96, 64)).astype(np.float32),
        "outliers": heavy.astype(np.float32),
        "odd number of rows": rng.standard_normal((31, 5)).astype(np.float32),
        "one row": rng.standard_normal((1, 7)).astype(np.float32),
        "zero": np.zeros((10, 3), np.float32),
    }


def largest_pair_product(values: NDArray[np.int8]) -> int:
    """The largest sum of two neighbouring products with any unsigned bytes, which must fit 16 bits with a sign."""
    padded = np.pad(values.astype(np.int64), ((0, len(values) % 2), (0, 0)))
    first, second = padded[0::2], padded[1::2]
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.maximum(-first, 0) + np.maximum(-second, 0)
    return 255 * int(np.maximum(positive, negative).max())


def product(matrix: Floats, x: Floats, mean: Floats | None = None) -> tuple[Floats, Floats]:
    """The product that a session computes, and the correction of the bias."""
    graph = operators.Graph()
    mean = np.zeros(len(matrix), np.float32) if mean is None else mean
    name, correction = int8.byte_product(graph, "x", "matrix", matrix, mean)
    proto = helper.make_graph(
        graph.nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(matrix)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        list(graph.initializers.values()),
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(operators.MICROSOFT, 1)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0], correction


@pytest.mark.parametrize("name", matrices())
def test_neighbouring_products_fit_sixteen_bits(name: str) -> None:
    values, _ = int8.quantised(matrices()[name])
    assert values.dtype == np.int8
    assert values.shape == matrices()[name].shape
    assert largest_pair_product(values) <= LARGEST_16_BIT


@pytest.mark.parametrize("name", matrices())
def test_weights_are_rounded_to_the_nearest_byte(name: str) -> None:
    matrix = matrices()[name]
    values, scale = int8.quantised(matrix)
    error = np.abs(matrix - values * scale) / scale
    assert error.max() < 1.5 + 1e-5  # one step more where a pair had to be reduced
    assert (error > 0.5 + 1e-5).mean() < 0.05


@pytest.mark.parametrize("rows", [1, 2, 3, 17, 64])
def test_the_products_are_those_of_plain_integers(rows: int) -> None:
    """Full-scale inputs of one sign and full-scale weights saturate in 16 bits unless the weights are limited."""
    matrix = saturating(192, 48)
    values, scale = int8.quantised(matrix)
    rng = np.random.default_rng(rows)
    integers = rng.choice(np.array([127, 126, -127]), (rows, 192), p=[0.7, 0.2, 0.1])
    integers[:, 0] = 127  # so that a step of the row's scale is 1
    expected = (integers @ values.astype(np.int64)) * scale
    found, _ = product(matrix, integers.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_graph_of_the_embedded_model_fits_sixteen_bits() -> None:
    model = onnx.load(MODELS / "tiny" / "model.int8.onnx")
    found = [numpy_helper.to_array(each) for each in model.graph.initializer if each.data_type == TensorProto.INT8]
    assert len(found) > 8
    assert max(largest_pair_product(values) for values in found) <= LARGEST_16_BIT


def test_a_row_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(5)
    matrix = rng.standard_normal((64, 24)).astype(np.float32)
    x = (rng.standard_normal((9, 64)) * np.logspace(-3, 3, 9)[:, None]).astype(np.float32)
    together, _ = product(matrix, x)
    for index in range(len(x)):
        np.testing.assert_array_equal(together[index], product(matrix, x[index : index + 1])[0][0])
    exact = x.astype(np.float64) @ matrix
    error = np.linalg.norm(together - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < 0.03


def test_silence_is_zero() -> None:
    matrix = np.random.default_rng(1).standard_normal((32, 8)).astype(np.float32)
    assert not product(matrix, np.zeros((3, 32), np.float32))[0].any()


def test_the_correction_makes_the_product_of_the_mean_input_exact() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.standard_normal((128, 16)).astype(np.float32)
    mean = rng.standard_normal(128).astype(np.float32)
    values, scale = int8.quantised(matrix)
    _, correction = product(matrix, mean[None], mean)
    expected = mean.astype(np.float64) @ matrix
    assert np.abs(mean @ (values * scale) - expected).max() > 0.01
    np.testing.assert_allclose(mean @ (values * scale) + correction, expected, atol=1e-4)

"""The implementations of `service.inference.backend`: ONNX Runtime and torch."""

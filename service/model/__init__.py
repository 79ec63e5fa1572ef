"""The model: fetching, checking, converting and storing it, the encoder in torch, and its ONNX graph."""

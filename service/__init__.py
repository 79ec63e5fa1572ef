"""A REST service for speech emotion recognition around emotion2vec+."""

import os

__version__ = "0.1.0"

# ONNX Runtime (1.32, as published) reports to its maker over the network, and keeps a database for that in the home
# directory, unless it is told not to before it is loaded. A service that hears people speak does not report to anybody;
# whoever wants it to sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

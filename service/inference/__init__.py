"""The engine: queue, batch, worker and the backends that hold the model. Knows nothing of HTTP."""

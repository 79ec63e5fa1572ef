"""The ways to run the model, behind the interface of `service.inference.backend`."""

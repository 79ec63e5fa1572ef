"""Everything that builds upon internals of uvicorn: protocols, signals, draining."""

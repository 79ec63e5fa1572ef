"""Everything that builds on internals of uvicorn and websockets: the protocols, signals and draining."""

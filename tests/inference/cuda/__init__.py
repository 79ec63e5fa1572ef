"""Tests that need a GPU. Everything else about the torch backend is tested on the CPU."""

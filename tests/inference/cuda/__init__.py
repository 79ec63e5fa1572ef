"""What only a GPU can show. Everything else about the torch backend is tested on the CPU."""

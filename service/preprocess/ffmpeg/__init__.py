"""FFmpeg in confined child processes."""

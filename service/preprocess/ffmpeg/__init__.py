"""Decoding with FFmpeg in sandboxed child processes."""

"""The benchmark of the service against FunASR, and profiles of single parts of the service."""

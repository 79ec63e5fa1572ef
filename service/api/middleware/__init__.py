"""Middleware around every route: request ids, log lines, metrics, access, limits and errors."""

"""What every request passes before its route: ids, log, metrics, access, limits."""

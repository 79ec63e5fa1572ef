"""The report of everything that needs a GPU."""

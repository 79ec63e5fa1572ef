"""A file, a recording or a live stream in, its emotions out; knows no transport."""

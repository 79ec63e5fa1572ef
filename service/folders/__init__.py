"""Recognition of many files: finding them, recognising each here or by a server, and one row for each in a file."""

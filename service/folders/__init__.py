"""Many files, a row for each: found, recognised here or by a server, and written so that a run can go on."""

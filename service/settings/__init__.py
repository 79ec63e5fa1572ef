"""All settings, and how their values are read from files, the environment and flags."""

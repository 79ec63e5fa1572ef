"""Load tests of a server: capacity, ten minutes of load (soak), live streams, and locust."""

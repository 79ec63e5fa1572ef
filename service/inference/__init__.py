"""The inference engine: queue, worker thread and backends; independent of HTTP."""

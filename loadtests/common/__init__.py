"""What several load tests share: the load generator, audio, server processes, measurements of processes, documents."""

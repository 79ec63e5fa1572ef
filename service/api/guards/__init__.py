"""What protects the service: who may ask and how often, what a connection may bring, what pages of others may do."""

"""Everything that is done to a model before it is served: find, check, convert, store."""

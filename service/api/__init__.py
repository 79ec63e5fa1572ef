"""HTTP: routes, schemas, problems and middleware. Knows nothing of tensors."""

"""The HTTP and WebSocket API: routes, schemas, problem documents and middleware, without any knowledge of tensors."""

"""The WebSocket route `/stream`: messages, order of events, closing."""

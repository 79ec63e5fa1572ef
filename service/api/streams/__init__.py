"""Live audio over WebSockets, from the route `/stream` down to its samples."""

"""Live queries: the protocol that clients speak over a WebSocket, and which queries a commit touches."""

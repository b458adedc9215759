"""The client's own commands, and what they print."""

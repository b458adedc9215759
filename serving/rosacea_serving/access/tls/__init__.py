"""The port, in plain text or with TLS, and its certificate."""

"""Authentication, authorisation and quotas: TLS, API keys, tokens, the rule of every RPC."""

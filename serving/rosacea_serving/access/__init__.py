"""Who may ask for what: TLS, API keys, tokens, the rule of every RPC, and what each caller may take."""

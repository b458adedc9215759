"""Tokens of an OpenID Connect issuer, and the public keys that verify them."""

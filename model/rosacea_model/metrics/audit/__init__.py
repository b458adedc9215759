"""Memorisation audit: does a model give away its training images? It proves on planted copies first that it would see.

Usage:

    rosacea audit models/mine --data train.zip --out docs/audit
"""

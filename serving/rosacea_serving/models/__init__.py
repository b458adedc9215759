"""The models in service: found, copied, started, and exchanged while calls go on."""

"""The worker process that TorchServe starts, and the names and memory it shares with the gateway."""

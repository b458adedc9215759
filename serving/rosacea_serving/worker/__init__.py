"""The process that draws, started by TorchServe, and what it shares with the gateway: names and memory."""

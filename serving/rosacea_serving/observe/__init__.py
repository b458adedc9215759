"""Metrics, logs and traces of calls and of TorchServe."""

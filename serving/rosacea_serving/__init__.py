"""The gateway, and the TorchServe worker behind it."""

"""How near each layer comes to what the device can do."""

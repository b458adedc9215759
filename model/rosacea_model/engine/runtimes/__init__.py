"""The networks of a model in forms that are fast on one kind of device."""

"""The interceptors around every call: receiving, identity, counting, errors to statuses."""

"""What surrounds every call: receiving the request, who asks, counting what is under way, errors to statuses."""

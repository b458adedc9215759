"""How a call reaches the service and comes back: addresses, connections, retries, deadlines, errors."""

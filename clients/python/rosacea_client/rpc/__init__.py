"""Transport of calls: addresses, connections, retries, deadlines, errors."""

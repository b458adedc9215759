"""Where the service listens, unless somebody says otherwise."""

DEFAULT_PORT = 7433
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"

"""Makes the calls of forked processes in a helper process, because gRPC does not survive a fork.

A forked child has its parent's gRPC as it stood at that moment: locks that are held, and none of the threads that would
release them. Whether a call in such a process hangs is a matter of chance, and of no setting of gRPC. So a forked
process never enters gRPC here. Its channels are `RelayChannel`s, which hand each call over a unix socket to a helper
process that was not forked (`python -m rosacea_client.relay.process`), whose own channel leads to the service. It is
started when it is first needed, and ends with the last channel of its process, or with that process.
"""

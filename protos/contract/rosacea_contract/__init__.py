"""What a request may hold and what an answer says, in Python: for the client and the service alike, without torch."""

"""What a connection may do and hold before anything is known of who opened it."""

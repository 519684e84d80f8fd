"""Transports: what carries a session's messages. Each runs the Sans-I/O session of session.py, and knows nothing of it
but messages in and messages out."""

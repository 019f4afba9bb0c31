"""minisink: StreamingLLM and attention sinks in plain NumPy."""

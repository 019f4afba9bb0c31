"""The command line, one file per command: its purpose, an example, its options and what it does. See `parser`."""

"""The command line, one file a command: its purpose, an example, its options, what it does. `parser` finds them."""

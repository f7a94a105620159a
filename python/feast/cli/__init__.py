"""The command line, where Feast has it."""

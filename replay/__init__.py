"""The command line: one module a subcommand, loaded when called."""

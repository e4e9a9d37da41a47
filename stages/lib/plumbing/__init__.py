"""How a command runs: command line, params.yaml, progress, undo. No result depends on it."""

"""Local `evaluate` metric modules: `evaluate.load` takes their paths, and no hub is asked."""

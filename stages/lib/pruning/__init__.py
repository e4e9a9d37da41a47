"""Which weights are pruned: scores, budgets and calibration; one module per method."""

"""Pruning: scores, budgets and calibration that decide which weights are pruned; one module per method."""

"""Figures, intervals and tests, computed from predictions without running a model."""

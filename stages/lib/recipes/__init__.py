"""Compressed models as recipes over a base checkpoint; one module per kind."""

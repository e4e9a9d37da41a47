"""Compressed models as recipes over a base checkpoint, by kind."""

"""Texts, reviews and documents: what they are read from, and the one form that the stages read."""

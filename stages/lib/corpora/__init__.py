"""Corpora: the one form in which every stage reads a text, and which of its rows are used."""

"""Texts: where they come from, and the one form in which every stage reads them."""

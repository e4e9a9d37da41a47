"""The common form of all texts, and the selection of the rows that are used."""

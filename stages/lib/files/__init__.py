"""What stages pass to each other: files written whole, hashed and checked; tables, and the rows of texts."""

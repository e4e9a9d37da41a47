"""Files: written whole or not at all, hashed, and read back only if intact."""

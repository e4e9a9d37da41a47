"""Sources of models and texts, and the conversion of texts into their common form."""

"""Sources: where models and texts come from, and how a text is brought into its one form."""

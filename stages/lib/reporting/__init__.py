"""The report and its page, model cards, exports and integrity checks."""

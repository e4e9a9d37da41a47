"""The study's other models: matching, averaging and leaving out blocks."""

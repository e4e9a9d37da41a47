"""Runs of a model on texts: perplexity, classification, summarization, sensitivity, the frontier."""

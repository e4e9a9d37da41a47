"""What a model says of each item: perplexity, classification, summarization, sensitivity."""

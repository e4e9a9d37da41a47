"""Models that run: device, loading, batches, token likelihoods and block-wise passes."""

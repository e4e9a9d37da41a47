"""Wanda and SparseGPT, ours and llmcompressor's."""

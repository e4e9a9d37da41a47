"""Checkpoints at rest: model families, tensors on disk, and how a download is normalized."""

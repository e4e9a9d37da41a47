"""Checkpoints at rest: their tensors on disk, their structure, and how a download is normalized."""

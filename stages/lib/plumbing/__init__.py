"""Command line, params.yaml, progress and error lines. No result depends on this package."""

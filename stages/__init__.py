"""One module per DVC stage. Each reads like a recipe; what they share is in `stages.lib`."""

"""What the stages share: one concept per module, heavy imports only where they are needed."""

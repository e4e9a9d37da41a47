"""Pruning methods: each a formula for what a weight is worth, in a module of its own."""

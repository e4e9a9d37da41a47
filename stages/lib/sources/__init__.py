"""Where models and data come from: a package index, a hub, or the user's own disk."""

"""One script per DVC stage, and three commands beside them; the library that they share is `stages.lib`."""

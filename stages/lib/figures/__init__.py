"""What follows from predictions without running a model: measures, intervals and tests."""

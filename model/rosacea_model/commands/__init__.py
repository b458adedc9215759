"""`rosacea model`, `data`, `train` and their kind. Only what computes loads torch."""

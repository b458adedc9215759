"""The commands `rosacea model`, `data`, `train` and `report`. torch is imported only to compute."""

"""Reports on a training run: console lines, picture sheets, statistics, estimates and an HTML page."""

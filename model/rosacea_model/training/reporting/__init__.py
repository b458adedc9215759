"""What a run shows of itself: lines, sheets, figures, estimates and a page."""

"""Scripts that prove robustness: kills, machine faults, and pictures of the pages."""

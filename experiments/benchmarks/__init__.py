"""Scripts that time this code and print ratios within one run."""

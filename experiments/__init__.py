"""Scripts: flags on top, one story each."""

"""Measurements of decisions without the clean image: stopping, cohorts, selection, combination."""

"""Measuring how to decide without the clean image, and the tables of it."""

"""Exercises: what is written in a row, how it is drawn, and what is right."""

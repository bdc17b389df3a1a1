"""Exact match over all sizes, answers to expressions, and what a model does."""

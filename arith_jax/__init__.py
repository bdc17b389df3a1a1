"""Transformers that learn exact arithmetic far beyond their training lengths."""

"""The transformer: modules, and the pure functions that run them."""

"""How fast an experiment trains, evaluates, decodes and draws its data."""

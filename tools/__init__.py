"""Programs that keep the repository."""

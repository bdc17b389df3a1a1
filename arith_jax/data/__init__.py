"""Batches of rows, drawn on the device."""

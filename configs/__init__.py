"""Experiments: each file's `get_config(argument)` returns one."""

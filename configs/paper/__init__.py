"""Experiments of the paper: each file's `get_config(argument)` returns one."""

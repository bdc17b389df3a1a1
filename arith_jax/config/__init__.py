"""What an experiment is decided by: frozen dataclasses with defaults.

`configs/base.py` describes every key. Nothing here asks JAX for its device.
"""

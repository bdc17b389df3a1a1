"""A page to try trained models on: `python -m arith_jax.demo`."""

"""The original's options, tensor names and checkpoints, and parity with it.

Source: mcleish7/arithmetic @ 86022a5.
"""

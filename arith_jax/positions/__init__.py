"""Where a token is: position ids as pure functions, and schemes that own them.

Nothing here knows of a model or of a task, so each function can be used in another
model.
"""

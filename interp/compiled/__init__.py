"""A compiled interpreter: a transformer whose weights are written, not trained, so that its mechanism is known.

`compile_model(spec)` gives the model with its answer key; every tool of the project runs on it as on a trained one.
"""

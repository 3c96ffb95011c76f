"""Worlds: what is true, apart from how it is shown."""

"""Runnable examples; see each module's first lines."""

"""Every framework in every server that can be had: ``python -m tests.matrix`` writes the table of it."""

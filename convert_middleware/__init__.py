"""Server-side tracking for Convert Experiments: one line of middleware, every number right."""

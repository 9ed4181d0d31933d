"""A small shop that runs two experiments and tracks five goals and its orders."""

"""The same site in every framework, and the pages of sites that must not change."""

"""From measured runs to a cost table."""

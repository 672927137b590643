"""Where files lie, and how they are written whole, locked and known by their content."""

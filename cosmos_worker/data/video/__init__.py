"""Video files as frames: in the order in which players show them, upright, found by number, fitted to a window."""

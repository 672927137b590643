"""Video files as frames: decoded in the order in which players show them, upright, found by number, fitted to a window."""

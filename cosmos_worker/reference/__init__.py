"""Command lines of the reference, so that existing scripts run: its trainer and its Video2World inference."""

"""The viewer: pages of all runs, datasets and videos in a folder, served to a browser. Writes nothing."""

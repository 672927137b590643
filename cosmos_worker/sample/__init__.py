"""Video2World sampling and the files it writes."""

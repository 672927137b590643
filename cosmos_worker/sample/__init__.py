"""Video2World sampling: inputs, prompts, passes, and the files it writes."""

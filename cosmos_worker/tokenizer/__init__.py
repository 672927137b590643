"""Video tokenizers and the store of cached latents."""

"""Sources of datasets and weights: folders, URLs, archives, the Hugging Face Hub, S3."""

"""Where bytes come from: folders, URLs, archives, the Hugging Face Hub, S3."""

"""What is computed once and kept on disk: latents of clips, embeddings of captions."""

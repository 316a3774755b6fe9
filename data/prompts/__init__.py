"""What people ask for, before any text encoder: files of jobs, styles, and expanders of short prompts. A prompt is never interpreted."""

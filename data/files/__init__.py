"""From the bytes of a media file to its frames: exactly those asked for, or a typed reason why not."""

"""Ways of making video: each says what is given of a clip, and the one Generator does the rest."""

"""Recipes for public sets that users have on disk: each lists what is there as clips, and what it left out, with the reason."""

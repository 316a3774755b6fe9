"""The procedural captioned world: scenes with exact truth, their pictures, their captions and what is held out."""

"""One module a format: each turns what it finds into rows, and never opens a video, extracts a member or unpickles anything."""

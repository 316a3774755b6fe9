"""Videos on disk, and the procedural world that makes some, turned into batches."""

"""Measures videos and reports on runs; it never trains."""

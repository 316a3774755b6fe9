"""Networks: constructor arguments are their config; they know no ranks, no sampling loops and no files."""

"""Ours beside others, in one process and by turns: every time is kept, and nothing is compared that was not measured together."""

"""The study directory: every path and every file format."""

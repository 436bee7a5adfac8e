"""Clients of a line: cameras that publish frames, consumers that read results."""

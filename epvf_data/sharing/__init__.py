"""Data sets from lab to lab: pushed, pulled, pinned, signed, read from afar."""

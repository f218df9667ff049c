"""One collection on many processes or machines: shards of rows handed to whatever runs functions."""

"""What one does with data sets: merge, select, compare, hand over. Reads and writes through the store alone."""

"""Data sets as files of other programs: HDF5 there and back, NumPy archives."""

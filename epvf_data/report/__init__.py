"""One HTML file to look into data sets and the critics that were fitted to them."""

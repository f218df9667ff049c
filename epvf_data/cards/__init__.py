"""What a data set says about itself to people and catalogues: README.md, Croissant metadata, a picture."""

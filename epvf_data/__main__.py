"""`python -m epvf_data` is the command line."""

from epvf_data.cli import main

main()

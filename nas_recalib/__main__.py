"""`python -m nas_recalib`."""

from nas_recalib.cli import main

main()

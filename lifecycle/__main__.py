"""``python -m lifecycle``: the command line."""

from lifecycle.cli import main

main()

"""``python -m lifecycle``: the command line."""

from lifecycle.cli import main

if __name__ == "__main__":
    main()

"""`python -m wsm`: the same as the `wsm` command."""

from wsm.cli import main

if __name__ == "__main__":
    main()

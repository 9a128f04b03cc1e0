"""`python -m vecdb` is `vecdb`, for whoever has the one and not the other on the path."""

from vecdb.cli import main

if __name__ == "__main__":
    main()

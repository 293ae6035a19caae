"""`python -m models`: list what there is, train a model, generate from it."""

from models.cli import main

if __name__ == "__main__":
    main()

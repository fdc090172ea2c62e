"""`python -m whimbrel_cli`: the same as `whimbrel`."""

from whimbrel_cli.main import main

if __name__ == "__main__":
    main()

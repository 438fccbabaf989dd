"""python -m carpk: the same as the command carpk."""

from carpk.cli import main

main()

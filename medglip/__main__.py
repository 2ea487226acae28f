"""`python -m medglip` is the command line."""

from medglip.cli import main

main()

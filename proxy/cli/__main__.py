"""`python -m proxy.cli`: the command where it is not on the path."""

from proxy.cli import main

main()

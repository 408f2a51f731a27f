"""`python -m resnetcli`."""

from resnetcli.cli.main import main

main()

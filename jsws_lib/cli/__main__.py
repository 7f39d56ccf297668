"""`python -m jsws_lib.cli` is `jsws`."""

from jsws_lib.cli.main import main

main()

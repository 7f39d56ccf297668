"""The command line, `jsws`."""

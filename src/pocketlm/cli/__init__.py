"""The command line: one thin file for each verb that reads options, calls a floor, prints."""

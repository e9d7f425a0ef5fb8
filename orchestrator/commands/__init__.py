"""Commands that measure, compare and show: a module each, whose `add` puts them on the command line."""

"""Pages for a browser: the demo and search reports, with the program that moves their motions."""

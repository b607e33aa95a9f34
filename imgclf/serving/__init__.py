"""A classifier behind HTTP: the server, its queue, its page."""

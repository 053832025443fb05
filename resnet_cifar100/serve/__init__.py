"""A trained network for others to use: answers about pictures, a web page, an HTTP interface."""

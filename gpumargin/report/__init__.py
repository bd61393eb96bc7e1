"""A run as one page to read or print, with its figures."""

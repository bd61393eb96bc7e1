"""Readers of venues' own files: each turns one file into a book folder and says what it left out."""

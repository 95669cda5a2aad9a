"""Metrics on arrays, reports on lexical vectors and pictures."""

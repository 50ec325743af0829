"""Folders of arrays: opened, checked against their manifest, written from examples."""

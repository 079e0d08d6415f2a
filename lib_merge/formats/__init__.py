"""Recipes and settings in text and in other programs' files, one format a file."""

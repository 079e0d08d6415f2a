"""Walks a plan tensor by tensor inside a memory budget, into a file or a live model."""

"""AutoMBW: a search over block weights that renders, scores, stores and resumes."""

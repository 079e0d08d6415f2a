"""One page of the tab a file; each has build(workspace)."""
